"""Optuna's storage on a server that may go away and come back, which loses nothing.

A server that restarts, a connection that is cut, a server's disk that is full: the call waits, says
so, and is made again. What workers tell meanwhile waits with them, and is in their checkpoints.
After an hour the sweep ends, and the same command continues it.

A call whose answer was lost may have been done: making it again must change nothing. Attributes and
metrics are set to what they are; a trial's end and its creation look first.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from kdscale.errors import UserError
from kdscale.search._patient import interruptible
from kdscale.urls import hide_passwords

PATIENCE_SECONDS = 3600.0
_LONGEST_PAUSE_SECONDS = 5.0
_SAY_EVERY_SECONDS = 60.0

_log = logging.getLogger("kdscale.search")
_Result = TypeVar("_Result")


class DatabaseAwayError(UserError):
    """A database that did not answer for as long as anybody waits for it."""


class ServedStorage(RDBStorage):
    """Optuna's storage on a server that may be away for a while.

    Args:
        name: What to call it in messages.
        url: Its SQLAlchemy URL.
        engine_kwargs: Settings of SQLAlchemy's engine.
    """

    def __init__(self, name: str, url: str, engine_kwargs: dict[str, Any]) -> None:
        self._name = name
        self._creations = 0
        super().__init__(url, engine_kwargs)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        """Sets how a trial stands; that it stands so already is no error in a second try."""
        tries = 0

        def once() -> bool:
            nonlocal tries
            tries += 1
            try:
                return bool(RDBStorage.set_trial_state_values(self, trial_id, state, values))
            except UpdateFinishedTrialError:
                if tries == 1 or self.get_trial(trial_id).state != state:
                    raise
                return True

        return self.patiently(once)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Creates a trial once, however often its database has to be asked."""
        self._creations = 0
        create = super().create_new_trial
        return self.patiently(lambda: create(study_id, template_trial))

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Any
    ) -> Any:
        # Optuna calls this in each of its own tries, in a transaction that holds the study.
        self._creations += 1
        if self._creations > 1 and template_trial is not None:
            found = self._created_before(study_id, template_trial, session)
            if found is not None:
                return found
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    def _created_before(self, study_id: int, template: FrozenTrial, session: Any) -> Any:
        """Returns the study's newest trial, if that is the template's: one process creates them."""
        from optuna.storages._rdb.models import TrialModel

        query = session.query(TrialModel).filter(TrialModel.study_id == study_id)
        newest = query.order_by(TrialModel.trial_id.desc()).first()
        attributes = [] if newest is None else newest.user_attributes
        known = {one.key: json.loads(one.value_json) for one in attributes}
        return newest if template.user_attrs.items() <= known.items() else None

    def patiently(self, call: Callable[[], _Result]) -> _Result:
        """Returns what a call returns, made again for as long as the database is away.

        Raises:
            DatabaseAwayError: If it was away for an hour.
        """
        began = time.monotonic()
        said = 0.0
        pause = 0.0  # a connection that was cut while nobody used it is replaced at once
        while True:
            try:
                result = call()
            except (StorageInternalError, SQLAlchemyError) as error:
                why = _why_away(error)
                if why is None:
                    raise
            else:
                if said:
                    _log.warning("%s answers again; the study goes on", self._name)
                return result
            now = time.monotonic()
            if now - began > PATIENCE_SECONDS:
                raise DatabaseAwayError(
                    f"{self._name}: did not answer for {PATIENCE_SECONDS / 60:g} minutes ({why}); "
                    "everything trained is kept, and the same command continues"
                )
            if pause and (not said or now - said > _SAY_EVERY_SECONDS):
                said = now
                _log.warning(
                    "%s does not answer (%s); the sweep waits for it, and loses nothing",
                    self._name,
                    why,
                )
            with interruptible():
                time.sleep(pause)
            pause = min(max(0.25, 2 * pause), _LONGEST_PAUSE_SECONDS)


def _why_away(error: BaseException) -> str | None:
    """Returns why a database cannot serve now but may later, in a line; None for other errors."""
    cause = error if isinstance(error, SQLAlchemyError) else error.__cause__
    if not isinstance(cause, DBAPIError):
        return None
    why = hide_passwords((f"{cause.orig}".strip().splitlines() or [type(cause).__name__])[0])
    away = isinstance(cause, OperationalError | InterfaceError) or cause.connection_invalidated
    return why if away else None


def _patient(method: Callable[..., _Result]) -> Callable[..., _Result]:
    @functools.wraps(method)
    def call(self: ServedStorage, *args: Any, **kwargs: Any) -> _Result:
        return self.patiently(lambda: method(self, *args, **kwargs))

    return call


for _name in (
    "create_new_study",
    "delete_study",
    "get_all_studies",
    "get_all_trials",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_system_attrs",
    "get_study_user_attrs",
    "get_trial",
    "set_study_system_attr",
    "set_study_user_attr",
    "set_trial_intermediate_value",
    "set_trial_system_attr",
    "set_trial_user_attr",
):
    setattr(ServedStorage, _name, _patient(getattr(RDBStorage, _name)))
