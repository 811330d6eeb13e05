-- Rows of runs are kept for a while (the setting cost.run_rows_days), and then dropped by the checkpoints of their partition.

GRANT DELETE ON margin_run TO tallygate_engine;
