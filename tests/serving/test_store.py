"""Versions of a model, and which is in use."""

import pytest

from jaxml import serving
from jaxml.serving.__main__ import main


def test_versions_are_added_switched_and_rolled_back(tmp_path, bundle_path, capsys):
    store = serving.Store(tmp_path / "store")
    with pytest.raises(serving.StoreError, match="empty"):
        store.bundle()
    assert [store.add(bundle_path), store.add(bundle_path)] == [1, 2]
    assert store.current() is None
    store.switch(1)
    store.switch(2)
    assert store.current() == 2 and store.bundle().name == "2"
    assert serving.load(store.bundle()).columns
    assert main(["rollback", str(store.path)]) == 0
    assert store.current() == 1 and store.versions() == [1, 2]
    assert main(["rollback", str(store.path)]) == 2
    assert "has no version before 1" in capsys.readouterr().err
    with pytest.raises(serving.StoreError, match="has no version 7"):
        store.switch(7)


def test_a_damaged_bundle_is_not_added_and_not_rolled_back_to(tmp_path, bundle_path):
    store = serving.Store(tmp_path / "store")
    for number in (1, 2):
        store.add(bundle_path)
        store.switch(number)
    features = store.bundle(1) / "features.json"
    features.write_text(features.read_text()[:-1])
    with pytest.raises(serving.BundleError):
        store.add(store.bundle(1))
    with pytest.raises(serving.BundleError):
        store.rollback()
    assert store.current() == 2 and store.versions() == [1, 2]
