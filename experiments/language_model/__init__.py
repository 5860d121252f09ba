"""How much sooner does a sampled softmax reach the perplexity of the exact one, over 84,827 words?

    python -m experiments.language_model                                   everything: one to two hours
    python -m experiments.language_model --minutes 4 --layers unigram      a quick look
    python -m experiments.language_model --resume runs/language_model/…    the layers that are not done yet
    python -m experiments.language_model --text FILE                       another text, a document a line
    python -m experiments.language_model complete RUN "a small domesticated"

The text is a dictionary: 3.7 million words of it to learn from, split by entry. An LSTM reads 32 streams of
it side by side, and predicts every next word, and where an entry ends; the state is carried from window to
window, and reset where an entry begins. The output layers differ: the exact softmax (blockwise) is trained
for `minutes`; then each other layer for as many steps, and up to twice as many until it has reached the
same loss. The loss is always that of the softmax over all words, on held-out entries. A step of a sampled
layer reads and writes the rows of its words and its candidates, and no others.

Beside them stands a 5-gram model with Kneser-Ney smoothing on the same words, if the programs of KenLM
are on the PATH.

It writes `language_model.png`, the curves of perplexity against time, and `curves.json` after each layer.
The best sampled layer is then trained for as long as the exact one, and left as a candidate that
`python -m jaxml.serving publish` takes: the ids of the last sixteen words in, the ten most probable next
words out. `complete` asks it, too.
"""
