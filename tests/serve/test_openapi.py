"""Whatever fits the OpenAPI document, or does not, gets an answer that the document describes, and never a 5xx."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from server_process import serving

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method"
)
"""All of schemathesis's that fit: a text may be valid for the document, and no image."""

CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 413, 415, 421, 422]
"""


@pytest.mark.parametrize(("examples", "least"), [(60, 200), pytest.param(55_000, 100_000, marks=pytest.mark.soak)])
def test_every_request_gets_an_answer_that_the_document_describes(
    examples: int, least: int, exported: Path, tmp_path: Path
) -> None:
    pytest.importorskip("schemathesis")
    with serving(exported, "--corrections", str(tmp_path / "corrections"), "--max-images", "8") as server:
        (tmp_path / "schemathesis.toml").write_text(CONFIG)
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--no-color"]
        command += [
            "--max-examples",
            str(examples),
            "--checks",
            CHECKS,
            "--seed",
            "19",
            "--workers",
            "2",
            "--generation-database",
            "none",
            "--request-timeout",
            "60",
        ]
        hooks = {"SCHEMATHESIS_HOOKS": "schema_hooks", "PYTHONPATH": str(Path(__file__).parent)}
        ran = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **hooks}, check=False
        )
        with server.client() as client:
            counted = client.get("/metrics").text
        assert server.stop() == 143
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    requests = {
        (path, code): int(count)
        for path, code, count in re.findall(
            r'requests_total\{method="POST",path="([^"]+)",code="(\d+)"\} (\d+)', counted
        )
    }
    print(f"\nschemathesis: {sum(requests.values()):,} requests, {requests}")
    generated = re.search(r"([\d,]+) generated", ran.stdout)
    assert generated is not None
    assert int(generated[1].replace(",", "")) >= least
    assert not [code for _, code in requests if code.startswith("5")]
    assert requests["/v1/predict", "200"] > least // 50
    assert requests["/v1/corrections", "422"] > least // 20
