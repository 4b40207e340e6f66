"""The recipe that trains, what feeds it, and the state that it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.training.checkpoint import (
        STATE_SCHEMA,
        SURE,
        VALIDATION,
        fewest_cases,
        finished,
        joined_numbers,
        read_checkpoint,
        recover,
        share_better,
        sure_of_best,
        validation_of,
        with_parts,
        with_task,
        write_checkpoint,
    )
    from isocenter.training.covariate_model import CovariateModel, fit_covariate_model
    from isocenter.training.data.loader import Batch, Loader
    from isocenter.training.data.store import Prepared, keep_marked, prepare_all
    from isocenter.training.length.probe import FEWER, NARROWER, narrower
    from isocenter.training.length.schedule import FEWEST_STEPS, Pace, Speed, most_steps, replan
    from isocenter.training.processes import SINGLE_PROCESS, Ranks
    from isocenter.training.recipe import train
    from isocenter.training.search_study import (
        COMPLETE,
        IMPOSSIBLE,
        PRUNED,
        HopelessError,
        Study,
        Trial,
        Tried,
        refuse_without_optuna,
    )
    from isocenter.training.session import Session
    from isocenter.training.session_length import (
        ClockedLength,
        Decided,
        FixedLength,
        Length,
        Recount,
        Several,
        in_shares,
        length_of,
    )
    from isocenter.training.state import Clock, Moment, Outcome, Share, State, Work
    from isocenter.training.transfer import TRANSFER, TRANSFER_SCHEMA, initialise, refuse_no_source, transfer_statement
    from isocenter.training.weighting import (
        MemberOutputs,
        MemberWeights,
        equal_weights,
        member_outputs,
        member_weights,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
