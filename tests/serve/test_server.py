"""What programs get from the server: the committee's own answers, and a sentence for everything else."""

from __future__ import annotations

import base64
import io
import json
import signal
import stat
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from server_process import Server, serving

import committee
from committee.cli.main import main
from committee.data import catalog
from committee.folders.run_folder import RunFolder
from committee.serve.limits import ServeLimits
from committee.serve.messages import PredictResponse
from committee.serve.served import Asked, open_served
from committee.web.model_info import ModelInfo


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_files_arrays_and_base64_get_the_committees_own_answers(
    server: Server, run: RunFolder, images: np.ndarray
) -> None:
    few = images[:6]
    members = committee.load(run.path)
    expected = members.answer(few[..., None])
    with server.client() as client:
        as_files = client.post("/v1/predict", files=[("files", (f"{i}.png", png(each))) for i, each in enumerate(few)])
        as_lists = client.post("/v1/predict", json={"images": few.tolist()})
        as_text = client.post("/v1/predict", json={"images": [in_base64(png(each)) for each in few]})
    for response in (as_files, as_lists, as_text):
        answers = PredictResponse.model_validate_json(response.content).answers
        for row, answer in enumerate(answers):
            assert list(answer.probabilities.values()) == expected.probabilities[row].tolist()
            assert answer.label == members.predict(few[row : row + 1, ..., None])[0]
            assert answer.familiar == pytest.approx(expected.familiar[row], rel=1e-12)
            assert [vote.probability for vote in answer.members] == pytest.approx(expected.members[:, row].max(axis=1))
    assert [each["image"] for each in as_files.json()["answers"]] == [f"{i}.png" for i in range(6)]


def test_pixels_are_what_the_committee_saw(server: Server, images: np.ndarray) -> None:
    large = np.kron(images[0], np.ones((5, 5), np.uint8))
    asked = {"images": [large.tolist()], "details": ["pixels"], "prepare": "as-is"}
    with server.client() as client:
        uri = client.post("/v1/predict", json=asked).json()["answers"][0]["pixels"]
        seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
        again = client.post("/v1/predict", json={"images": [seen.tolist()]}).json()["answers"]
        first = client.post("/v1/predict", json=asked).json()["answers"]
    assert again[0]["probabilities"] == first[0]["probabilities"]


BIG = png(np.zeros((100, 100), np.uint8))
REFUSED: dict[str, tuple[int, str, dict[str, object]]] = {
    "no type": (415, "multipart/form-data", {"content": b"x"}),
    "no JSON": (422, "openapi.json", {"content": b"{", "headers": {"content-type": "application/json"}}),
    "no images": (422, "images", {"json": {"images": []}}),
    "another field": (422, "image: Extra", {"json": {"images": ["a"], "image": 1}}),
    "no base64": (422, "base64", {"json": {"images": ["&"]}}),
    "ragged rows": (422, "equal length", {"json": {"images": [[[1, 2], [3]]]}}),
    "out of range": (422, "from 0 to 255", {"json": {"images": [[[1, 2], [3, 256]]]}}),
    "five channels": (422, "channels", {"json": {"images": [[[[1, 2, 3, 4, 5]]]]}}),
    "no image": (422, "PNG, JPEG", {"files": {"files": ("a.png", b"nothing")}}),
    "cut off": (422, "damaged or cut off", {"files": {"files": ("a.png", BIG[:60])}}),
    "another form": (422, "'files'", {"files": {"image": ("a.png", BIG)}}),
    "no end": (422, "its end", {"content": b"--b\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}}),
    "too many": (413, "8 images", {"json": {"images": [[[1]]] * 9}}),
    "too many files": (413, "8 images", {"files": [("files", ("a.png", BIG))] * 40}),
    "too many bytes": (413, "2,097,152 bytes", {"content": b"x" * 2**21 + b"y"}),
    "another page": (403, "another server", {"json": {}, "headers": {"origin": "http://example.org"}}),
    "another host": (421, "--allow-host", {"json": {}, "headers": {"host": "example.org"}}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_answered_is_refused_in_a_sentence(name: str, server: Server) -> None:
    status, said, request = REFUSED[name]
    with server.client() as client:
        response = client.post("/v1/predict", **request)  # type: ignore[arg-type]
    assert response.status_code == status, response.text
    assert said in response.json()["error"]
    assert "\n" not in response.json()["error"]


def test_an_image_of_many_pixels_is_refused_before_it_is_decoded(server: Server) -> None:
    content = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(content, "PNG")
    with server.client() as client:
        response = client.post("/v1/predict", files={"files": ("a.png", content.getvalue())})
    assert response.status_code in (413, 422)
    assert "pixels" in response.json()["error"]


def test_one_unreadable_image_among_others_is_named(server: Server, images: np.ndarray) -> None:
    files = [("files", ("good.png", png(images[0]))), ("files", ("bad.png", b"nothing"))]
    with server.client() as client:
        good, bad = client.post("/v1/predict", files=files).json()["answers"]
    assert good["image"] == "good.png"
    assert bad["image"] == "bad.png"
    assert "bad.png" in bad["error"]


def test_the_other_paths_answer(server: Server, run: RunFolder) -> None:
    with server.client() as client:
        model = ModelInfo.model_validate_json(client.get("/v1/model").content)
        measured = client.get("/metrics").text
        assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
        assert client.get("/nothing").status_code == 404
        assert client.get("/page/../app.py").status_code == 404
        headers = client.get("/nothing").headers
    assert (model.members, model.engine, model.accuracy and model.accuracy.of) == (2, "committee", "test")
    assert 'committee_requests_total{method="GET",path="/v1/model",code="200"}' in measured
    assert "committee_batch_images_bucket" in measured
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


def test_corrections_are_stored_and_told(server: Server, run: RunFolder, images: np.ndarray) -> None:
    content, folder = png(images[3]), run.path.with_name("digits-corrections")
    with server.client() as client:
        asked = {"images": [in_base64(content)], "details": ["pixels"]}
        answer = client.post("/v1/predict", json=asked).json()["answers"][0]
        correction = {"image": in_base64(content), "pixels": answer["pixels"], "answer": answer["label"]}
        for label in ("5", "7"):  # the second one takes the first one's place
            response = client.post("/v1/corrections", json={**correction, "label": label})
            assert response.status_code == 201, response.text
        wrong = client.post("/v1/corrections", json={**correction, "label": "../7"})
        small = client.post("/v1/corrections", json={**correction, "label": "7", "pixels": in_base64(BIG)})
    assert (wrong.status_code, small.status_code) == (422, 422)
    assert [path.parent.name for path in folder.glob("images/*/*.png")] == ["7"]
    stored = np.asarray(Image.open(folder / response.json()["stored"]))
    assert (stored == images[3]).all()
    assert [path.read_bytes() for path in (folder / "originals").iterdir()] == [content]
    told = CliRunner().invoke(main, ["data", "corrections", str(folder), "--json"])
    assert json.loads(told.output)["corrections"] == [{"label": "7", "answer": answer["label"], "images": 1}]


def test_an_exported_committee_is_served_without_torch(exported: Path, images: np.ndarray) -> None:
    with serving(exported, "--no-corrections") as server, server.client() as client:
        answers = client.post("/v1/predict", json={"images": images[:2].tolist()}).json()["answers"]
        assert client.get("/v1/model").json()["engine"] == "onnx"
        assert client.get("/v1/run").status_code == 404
        assert client.post("/v1/corrections", json={}).status_code == 404
        assert "libtorch" not in Path(f"/proc/{server.process.pid}/maps").read_text()
    expected = committee.load(exported).predict_proba(images[:2, ..., None])
    assert [list(each["probabilities"].values()) for each in answers] == pytest.approx(expected, abs=1e-6)


def test_beyond_this_machine_a_token_is_needed(exported: Path, tmp_path: Path) -> None:
    refused = CliRunner().invoke(main, ["serve", str(exported), "--host", "0.0.0.0"])
    assert refused.exit_code == 2
    assert "--token-file" in refused.output
    file = tmp_path / "token"
    with serving(exported, "--host", "0.0.0.0", "--token-file", str(file)) as server, server.client() as client:
        token = file.read_text().strip()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert client.get("/v1/model").status_code == 401
        assert client.get("/metrics", headers={"authorization": "Bearer x"}).status_code == 401
        assert client.get("/v1/model", headers={"authorization": f"Bearer {token}"}).status_code == 200
        assert client.get("/readyz").status_code == 200
        assert server.stop() == 143


def test_ctrl_c_ends_it_and_what_cannot_be_served_is_said(run: RunFolder, exported: Path, tmp_path: Path) -> None:
    with serving(run.path, "--no-corrections", ready=False) as server:
        with server.client() as client:
            status = client.get("/readyz").json()["status"]
            early = client.post("/v1/predict", json={"images": [[[1]]]})
        assert status in ("loading", "ok")
        assert early.status_code == (503 if status == "loading" else 200) or early.headers.get("retry-after")
        assert server.stop(signal.SIGINT) == 130
    (tmp_path / "empty").mkdir()
    with pytest.raises(AssertionError, match="Error: "), serving(tmp_path / "empty"):
        pass
    with serving(exported) as server:
        taken = CliRunner().invoke(main, ["serve", str(exported), "--port", str(server.port)])
        assert f"port {server.port} cannot be listened on" in taken.output
    with pytest.raises(httpx.ConnectError), server.client() as client:
        client.get("/healthz")


def test_no_data_set_is_downloaded_to_serve_a_run(
    written: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest training images are left out, which is said."""
    lines = list[str]()
    monkeypatch.setitem(catalog.PUBLISHED, "mnist-5k", catalog.PUBLISHED["kmnist"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(catalog, "fetch", lambda *args, **options: lines.append("downloaded"))
    served = open_served(
        written.path, ServeLimits(), Asked(precision=0.9), device="cpu", corrections=False, report=lines.append
    )
    assert served.nearest is None
    assert (served.info.coverage, served.info.precision) == (None, 0.9)
    assert [line.partition(":")[0] for line in lines] == ["Note"]
    assert "most similar training images: mnist-5k was not found" in lines[0]
    assert "COMMITTEE_DATA=DIR" in lines[0]
    assert "--data-dir" not in lines[0]  # which serve does not have
