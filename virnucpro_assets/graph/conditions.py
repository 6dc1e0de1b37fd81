"""Automation conditions: when Dagster starts an asset without a person."""

import dagster as dg

from virnucpro_assets.platform.tags import DRIVER_TAG

AC = dg.AutomationCondition


# `virnucpro predict` and groups start all runs of their samples themselves, so their events must start nothing here.
# Two conditions are needed: `executed_with_tags` sees only the run of an asset's latest partition;
# `any_new_update_has_run_tags` sees the run of each partition, but only from the second event on.
_DRIVEN = AC.any_new_update_has_run_tags(tag_keys={DRIVER_TAG}) | AC.executed_with_tags(tag_keys={DRIVER_TAG})


_NEWS = AC.newly_updated() & ~AC.executed_with_root_target() & ~_DRIVEN


# For assets in the same run as those before them: that run's blocking checks stop it if one fails.
FOLLOW = (
    AC.any_deps_match(_NEWS | AC.will_be_requested()).since_last_handled()
    & ~AC.any_deps_missing()
    & ~AC.any_deps_in_progress()
    & ~AC.in_progress()
).with_label("follow upstream")


# For the first layer. It reacts to missing products, not only to new events: a sample's event and its partition key
# become visible one after the other, and a tick between the two sees an event of a partition that does not exist yet.
# Samples that a command drives are excluded: a tick may come between two of their products.
BEGIN = (
    (
        AC.any_deps_match(_NEWS | AC.will_be_requested())
        | (AC.missing() & ~AC.any_deps_missing() & ~AC.any_deps_match(_DRIVEN)).newly_true()
    ).since_last_handled()
    & ~AC.any_deps_missing()
    & ~AC.in_progress()
).with_label("begin what has arrived")


# For assets that start a new run: they wait until the assets before them have passed their blocking checks.
FOLLOW_CHECKED = (FOLLOW & AC.all_deps_blocking_checks_passed()).with_label("follow checked upstream")
