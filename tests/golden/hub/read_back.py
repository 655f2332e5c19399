"""Reads what `gdrd hub push` has made with the Hub's own Python client: the folder's card, and the repository at HF_ENDPOINT.

    HF_ENDPOINT=... HF_TOKEN=... python read_back.py OWNER/NAME FOLDER RUN

`tests/it/hub_push.rs` runs it where GDRD_PYTHON names a Python with huggingface_hub.
"""

import filecmp
import json
import sys
from pathlib import Path

from huggingface_hub import ModelCard, hf_hub_download, metadata_load
from huggingface_hub.repocard_data import EvalResult, model_index_to_eval_results

repository, folder, run = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])

metadata = metadata_load(folder / "README.md")
assert metadata["license"] == "mit" and metadata["library_name"] == "gdrd", metadata
assert "face-recognition" in metadata["tags"] and metadata["pipeline_tag"] == "image-feature-extraction", metadata
_, results = model_index_to_eval_results(metadata["model-index"])
figures = {result.metric_type: result.metric_value for result in results}
measured = json.loads((run / "evaluation/verification.json").read_text())[0]["outcome"]["figures"]
accuracy = next(figure["value"] for figure in measured if figure["name"] == "accuracy")
assert figures["accuracy"] == accuracy, (figures, accuracy)
assert all(isinstance(result, EvalResult) and result.dataset_type == "synthetic-faces" for result in results)

card = ModelCard.load(folder / "README.md")
assert card.data.model_name and card.data.eval_results, card.data.to_dict()
assert "not stated" in card.text and "research: only" in card.text, card.text

for name in ["README.md", "student.safetensors", "student.onnx", "recipe.resolved.toml", "lock.json"]:
    path = hf_hub_download(repository, name)
    original = folder / name
    same = name == "README.md" or filecmp.cmp(path, original, shallow=False)
    assert same, name
pushed = ModelCard.load(repository)
assert pushed.data.model_name == repository.split("/")[1], pushed.data.to_dict()
print(f"read back {repository}: {len(results)} figures, accuracy {accuracy}")
