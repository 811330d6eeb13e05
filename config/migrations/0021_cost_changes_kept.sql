-- Differences are kept for a while (the setting cost.change_rows_days), and then dropped by the checkpoints of their partition.

GRANT DELETE ON cost_change TO tallygate_engine;
COMMENT ON TABLE cost_change IS 'Signed differences: those of a row sum to it, as long as they are kept behind the closing of its hour.';
