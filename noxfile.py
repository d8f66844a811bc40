"""Sessions beyond ``make test``: every Python that is here, each ipykernel properly installed, each pandas.

``nox`` runs the tests on 3.11, 3.12 and 3.13, leaving out those that are missing; ``nox -s ipykernels`` the notebook's,
``nox -s pandas`` those of the accessors with each pandas that they are meant for, and 10,000 generated calls.
"""

from __future__ import annotations

import nox

nox.options.sessions = ["tests"]
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    session.install("--editable", ".[test]")
    # The other ipykernels in .kernels were installed for one Python; here the installed one is enough.
    session.run("pytest", "tests", *session.posargs, env={"NBPAR_KERNEL_PYTHONPATH": ""})
    session.run("pytest", "--doctest-modules", "nbpar")


@nox.session
@nox.parametrize("ipykernel", ["==6.31.*", "==7.3.*", ""], ids=["6.31", "7.3", "newest"])
def ipykernels(session: nox.Session, ipykernel: str) -> None:
    session.install("--editable", ".[test]")
    session.install("--upgrade", f"ipykernel{ipykernel}")
    session.run("pytest", "tests/notebook", *session.posargs, env={"NBPAR_KERNEL_PYTHONPATH": ""})


@nox.session
@nox.parametrize("version", ["==2.2.*", "==2.3.*", ">=3"], ids=["2.2", "2.3", "3"])
def pandas(session: nox.Session, version: str) -> None:
    session.install("--editable", ".[test]")
    session.install(f"pandas{version}")
    session.run("pytest", "tests/interop/test_pandas.py", "tests/interop/test_pandas_differential.py", *session.posargs)
    session.run("python", "-m", "tests.interop.pandas_differential", "--examples", "10000")
