"""When Dagster materializes an asset by itself."""

import dagster as dg

from virnucpro_assets.platform.tags import DRIVER_TAG

AC = dg.AutomationCondition


# `virnucpro predict` and batches drive their samples themselves; their news starts nothing here. `executed_with_tags`
# knows the run of an asset's latest partition alone; the other one knows each partition's, from the second event on.
_DRIVEN = AC.any_new_update_has_run_tags(tag_keys={DRIVER_TAG}) | AC.executed_with_tags(tag_keys={DRIVER_TAG})


_NEWS = AC.newly_updated() & ~AC.executed_with_root_target() & ~_DRIVEN


# Follows within one run, whose blocking checks stop it in time.
FOLLOW = (
    AC.any_deps_match(_NEWS | AC.will_be_requested()).since_last_handled()
    & ~AC.any_deps_missing()
    & ~AC.any_deps_in_progress()
    & ~AC.in_progress()
).with_label("follow upstream")


# The first layer also looks at what is there, not only at news: a sample's report and its partition key become
# visible one after the other, and a tick between the two sees news of a partition that does not exist yet. What is
# there of a driven sample is no cause: a tick may fall between two of its products.
BEGIN = (
    (
        AC.any_deps_match(_NEWS | AC.will_be_requested())
        | (AC.missing() & ~AC.any_deps_missing() & ~AC.any_deps_match(_DRIVEN)).newly_true()
    ).since_last_handled()
    & ~AC.any_deps_missing()
    & ~AC.in_progress()
).with_label("begin what has arrived")


# Begins a run of its own on what another run made, once that has passed its blocking checks.
FOLLOW_CHECKED = (FOLLOW & AC.all_deps_blocking_checks_passed()).with_label("follow checked upstream")
