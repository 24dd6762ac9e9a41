"""Extract the Instructure Data Access Platform (Canvas Data 2) from Python.

    import daplake

    report = daplake.sync("./lake", tables=["users", "courses"])
    table = daplake.query("SELECT workflow_state, count(*) FROM users GROUP BY 1", "./lake")

The functions start the `daplake` program that comes with this package and translate its output. The credentials are those of the program: the
variables `DAP_CLIENT_ID` and `DAP_CLIENT_SECRET`, the settings file, or the arguments `client_id` and `client_secret`.
"""

from ._errors import Error, Failure, SyncError
from ._program import program
from ._query import query
from ._report import Report, TableReport
from ._sync import sync, sync_all

__all__ = ["Error", "Failure", "Report", "SyncError", "TableReport", "program", "query", "sync", "sync_all"]
