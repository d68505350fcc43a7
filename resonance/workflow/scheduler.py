"""Keep Snakemake's scheduler from looking for work more often than it needs to."""

import threading


def one_timer_at_a_time() -> None:
    """Let the scheduler set one timer at a time, not one a pass.

    Its default limit of 100 starts a second makes Snakemake 9.27 set a timer in every pass that leaves jobs waiting,
    and every timer makes a pass. So each job that ends adds a pass a second for the rest of the run.
    """
    from snakemake.scheduling.job_scheduler import JobScheduler

    def look_again(scheduler: JobScheduler, delay: float) -> None:
        if getattr(scheduler, "_timer", None) is not None:
            return

        def wake() -> None:
            scheduler._timer = None  # before the pass that it starts, which may ask again
            scheduler._open_jobs.release()

        scheduler._timer = threading.Timer(delay, wake)
        scheduler._timer.daemon = True
        scheduler._timer.start()

    JobScheduler._schedule_reevalutation = look_again
