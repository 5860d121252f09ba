"""From a finished run to the version in use, by two judgements."""

import dataclasses
import os
from datetime import UTC, datetime

from jaxml.serving import bundle as bundles
from jaxml.serving import candidate, verdicts
from jaxml.serving.bundle import Bundle, BundleError
from jaxml.serving.candidate import CandidateError
from jaxml.serving.gate import Check, Verdict, judge
from jaxml.serving.store import Store, StoreError
from jaxml.serving.trial import try_out
from jaxml.serving.verdicts import Publication

__all__ = ["publish"]


def publish(run: str | os.PathLike[str], store: str | os.PathLike[str]) -> Publication:
    """Judges what a finished run left beside the bundle in use, tries it in a server, and switches to it.

    Each attempt leaves a verdict in the store, whatever it is. A bundle that is refused is not added. If
    the bundle in use is damaged, changes are not judged, and the verdict says so.

    Args:
        run: a run directory, or a folder inside of one, with what `leave` wrote.
        store: directory of the store; it is made if it is not there.

    Raises:
        CandidateError: a ValueError: the run is not finished, or left nothing, or another model.
        BundleError: a ValueError: the bundle is damaged.
        RunDirectoryError: an OSError: there is no run.
    """
    given, home = candidate.read(run), Store(store)
    folder, against = home.path / "verdicts", home.current()
    new = bundles.load(given.bundle)
    current: Bundle | None = None
    damage: tuple[Check, ...] = ()
    if against is not None:
        try:
            current = bundles.load(home.bundle(against))
        except (BundleError, StoreError) as error:  # Else nothing could ever take its place.
            damage = (Check("bundle in use", "skipped", note=f"it is damaged: {error}"),)
    told = Publication(
        number=None,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        run=os.path.abspath(run),
        model=new.manifest.name,
        digest=new.manifest.digest,
        against=against,
        version=against,
        gate=Verdict(()),
        trial=None,
    )
    if current is not None:
        if current.manifest.name != told.model:
            raise CandidateError(
                f"{given.bundle}: is a model {told.model!r}, the store's is {current.manifest.name!r}"
            )
        if current.manifest.digest == told.digest:
            return told
    judged = Verdict((*damage, *judge(new, current, given.held_out, given.gate).checks))
    tried = try_out(new) if judged.passed else None
    version = home.add(given.bundle) if tried is not None and tried.passed else None
    told = dataclasses.replace(
        told, number=verdicts.next_number(folder), version=version, gate=judged, trial=tried
    )
    verdicts.write(folder, told)
    if version is not None:
        home.switch(version)
    return told
