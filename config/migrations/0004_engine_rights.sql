-- What the running engine may do. It owns nothing, so it can neither drop nor truncate; ledger rows it can only add.

GRANT SELECT, INSERT, UPDATE ON partition, account, alert, member, assignment TO tallygate_engine;
GRANT SELECT, UPDATE ON controller TO tallygate_engine;
GRANT SELECT, INSERT ON command, posting, dead_letter, catalogue TO tallygate_engine;
GRANT SELECT, INSERT, DELETE ON dedup_segment TO tallygate_engine;
