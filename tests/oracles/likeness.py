#!/usr/bin/env python3
"""How well can requests of one origin be told from another's? Logistic regression on character 1- to 5-grams, per
language, five folds; AUROC with Hanley and McNeil's standard error. 0.5: not at all. Single messages only.

  python3 -m venv V && V/bin/pip install scikit-learn
  V/bin/python tests/oracles/likeness.py WILD.jsonl OTHER.jsonl...

Lines as in deploy/train/cockpit/written/README.md; a language is told by its first Chinese character.
"""
import json
import random
import re
import sys

import numpy
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

SEED = 3
MOST = 2500  # of the other origin


def requests(paths):
    out = {"en": [], "zh": []}
    for path in paths:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                messages = json.loads(line)["messages"]
                if len(messages) == 1:
                    text = messages[0]["content"]
                    out["zh" if re.search("[\u4e00-\u9fff]", text) else "en"].append(text)
    return out


def auroc(positive, negative):
    texts = positive + negative
    truth = numpy.array([1] * len(positive) + [0] * len(negative))
    score = numpy.zeros(len(texts))
    folds = StratifiedKFold(5, shuffle=True, random_state=SEED)
    for train, test in folds.split(texts, truth):
        grams = TfidfVectorizer(analyzer="char", ngram_range=(1, 5), lowercase=False, sublinear_tf=True)
        model = LogisticRegression(C=10, max_iter=300, class_weight="balanced")
        model.fit(grams.fit_transform([texts[i] for i in train]), truth[train])
        score[test] = model.decision_function(grams.transform([texts[i] for i in test]))
    a = roc_auc_score(truth, score)
    n, m = len(positive), len(negative)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    return a, ((a * (1 - a) + (n - 1) * (q1 - a * a) + (m - 1) * (q2 - a * a)) / (n * m)) ** 0.5


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    wild, other = requests(sys.argv[1:2]), requests(sys.argv[2:])
    rng = random.Random(SEED)
    for language in ("en", "zh"):
        negative = rng.sample(other[language], min(MOST, len(other[language])))
        if len(wild[language]) < 10 or len(negative) < 10:
            sys.exit(f"{language}: expected at least 10 single messages of each origin, found {len(wild[language])} and {len(negative)}")
        a, error = auroc(wild[language], negative)
        print(f"{language}: {len(wild[language])} and {len(negative)} requests, AUROC {a:.3f} +- {error:.3f}")


if __name__ == "__main__":
    main()
