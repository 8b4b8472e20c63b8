"""The papers' experiments, each as a study that anyone can run: `failscape reproduce NAME --out FOLDER`."""

from failscape.study.reproduce.registry import REPRODUCTIONS, reproduce

__all__ = ["REPRODUCTIONS", "reproduce"]
