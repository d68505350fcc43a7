"""Validates CRATE.zip against Workflow Run Crate 0.5, without a network: `python crate_validator.py CRATE.zip`.

Run by an environment of its own (.ci/run makes it): roc-validator wants another rich than Snakemake's bar does. The
JSON-LD context of RO-Crate 1.1, the one thing that it would fetch, is the copy that rocrate 0.14 carries.
"""

import io
import sys
from email.message import Message
from importlib.resources import files
from urllib.response import addinfourl

import rdflib.parser
import requests
from rocrate_validator import models, services

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
KIND = "application/ld+json"


def context_of(url: str) -> bytes:
    if url != CONTEXT:
        raise OSError(f"{url} was asked for, which is not at hand")
    return files("rocrate").joinpath("data/ro-crate.jsonld").read_bytes()


def opened(request: object) -> addinfourl:
    headers = Message()
    headers["Content-Type"] = KIND
    return addinfourl(io.BytesIO(context_of(request.full_url)), headers, request.full_url, 200)


def answer(session: requests.Session, method: str, url: str, **_: object) -> requests.Response:
    made = requests.Response()
    made.status_code, made.url, made._content = 200, url, context_of(url)
    made.headers["Content-Type"] = KIND
    return made


rdflib.parser._urlopen = opened
requests.Session.request = answer
found = services.validate(
    services.ValidationSettings(
        rocrate_uri=sys.argv[1], profile_identifier="workflow-run-crate", requirement_severity=models.Severity.REQUIRED
    )
)
for issue in found.get_issues():
    print(issue.check.identifier, issue.message, issue.violatingEntity, issue.violatingProperty)
print("valid" if found.passed() else "not valid")
