CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0022');
CREATE TABLE api_keys (
	id VARCHAR(40) NOT NULL, 
	name VARCHAR(100) NOT NULL, 
	scopes VARCHAR(40) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	created_at BIGINT NOT NULL, 
	expires_at BIGINT, 
	revoked_at BIGINT, 
	last_used_at BIGINT, limits TEXT, secret_id VARCHAR(16), 
	CONSTRAINT pk_api_keys PRIMARY KEY (id), 
	CONSTRAINT uq_api_keys_digest UNIQUE (digest)
);
CREATE TABLE attempts (
	id VARCHAR(16) NOT NULL, 
	operation_id VARCHAR(40) NOT NULL, 
	instance_id VARCHAR(40) NOT NULL, 
	upstream_name VARCHAR(255) NOT NULL, 
	product_id VARCHAR(255) NOT NULL, 
	cluster_id VARCHAR(255) NOT NULL, 
	region VARCHAR(255) NOT NULL, 
	price BIGINT NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	created_at BIGINT NOT NULL, 
	send_by BIGINT NOT NULL, 
	ended_at BIGINT, 
	upstream_id VARCHAR(255), 
	reason VARCHAR(64), 
	message TEXT, 
	unseen_count INTEGER DEFAULT 0 NOT NULL, 
	unseen_since BIGINT, image VARCHAR(500) DEFAULT '' NOT NULL, key_digest VARCHAR(64) DEFAULT '' NOT NULL, clock_offset BIGINT, 
	CONSTRAINT pk_attempts PRIMARY KEY (id), 
	CONSTRAINT fk_attempts_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id), 
	CONSTRAINT fk_attempts_operation_id FOREIGN KEY(operation_id) REFERENCES operations (id), 
	CONSTRAINT uq_attempts_upstream_name UNIQUE (upstream_name)
);
CREATE TABLE bill_readings (
	name VARCHAR(16) NOT NULL, 
	due_at BIGINT NOT NULL, 
	failures INTEGER DEFAULT 0 NOT NULL, 
	window_ms BIGINT NOT NULL, 
	pass_since BIGINT, 
	pass_end BIGINT, 
	next_since BIGINT, 
	next_category INTEGER DEFAULT 0 NOT NULL, 
	comparable BOOLEAN DEFAULT 1 NOT NULL, 
	reached BIGINT, 
	billed_until BIGINT, 
	clock_offset BIGINT DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_bill_readings PRIMARY KEY (name)
);
CREATE TABLE billed_days (
	day BIGINT NOT NULL, 
	upstream_id VARCHAR(255) NOT NULL, 
	category VARCHAR(32) NOT NULL, 
	hours TEXT NOT NULL, 
	CONSTRAINT pk_billed_days PRIMARY KEY (day, upstream_id, category)
);
CREATE TABLE billing_spans (
	id INTEGER NOT NULL, 
	instance_id VARCHAR(40) NOT NULL, 
	upstream_id VARCHAR(255) NOT NULL, 
	kind VARCHAR(8) NOT NULL, 
	rate BIGINT, 
	began_after BIGINT NOT NULL, 
	began_by BIGINT, 
	ended_after BIGINT, 
	ended_by BIGINT, 
	key_id VARCHAR(40), 
	tags TEXT, expires_after BIGINT, expires_by BIGINT, 
	CONSTRAINT pk_billing_spans PRIMARY KEY (id), 
	CONSTRAINT fk_billing_spans_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id)
);
CREATE TABLE billing_states (
	instance_id VARCHAR(40) NOT NULL, 
	upstream_id VARCHAR(255) NOT NULL, 
	since BIGINT NOT NULL, 
	known_at BIGINT NOT NULL, 
	adopted BOOLEAN DEFAULT 0 NOT NULL, 
	word VARCHAR(64) DEFAULT '' NOT NULL, 
	counts_after BIGINT, 
	absent_by BIGINT, 
	started_at BIGINT, 
	stopped_at BIGINT, 
	ended BOOLEAN DEFAULT 0 NOT NULL, 
	least BIGINT DEFAULT 0 NOT NULL, 
	most BIGINT DEFAULT 0 NOT NULL, 
	unknown BOOLEAN DEFAULT 0 NOT NULL, 
	key_id VARCHAR(40), 
	tags TEXT, 
	CONSTRAINT pk_billing_states PRIMARY KEY (instance_id, upstream_id), 
	CONSTRAINT fk_billing_states_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id)
);
CREATE TABLE budgets (
	id VARCHAR(40) NOT NULL, 
	name VARCHAR(100) NOT NULL, 
	amount BIGINT NOT NULL, 
	period VARCHAR(8) NOT NULL, 
	tz VARCHAR(64) NOT NULL, 
	key_id VARCHAR(40), 
	tag_name VARCHAR(63), 
	tag_value VARCHAR(256), 
	alert_at TEXT NOT NULL, 
	on_limit VARCHAR(8) NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	told_since BIGINT, 
	told TEXT NOT NULL, 
	exceeded BOOLEAN NOT NULL, key_limit BOOLEAN DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_budgets PRIMARY KEY (id)
);
CREATE TABLE cost_findings (
	type VARCHAR(64) NOT NULL, 
	upstream_id VARCHAR(255) NOT NULL, 
	day BIGINT NOT NULL, 
	told_at BIGINT NOT NULL, 
	CONSTRAINT pk_cost_findings PRIMARY KEY (type, upstream_id, day)
);
CREATE TABLE "deliveries" (
	id VARCHAR(40) NOT NULL, 
	line_id VARCHAR(40) NOT NULL, 
	webhook_id VARCHAR(40) NOT NULL, 
	instance_id VARCHAR(40), 
	event_sequence BIGINT NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	tries INTEGER DEFAULT 0 NOT NULL, 
	attempts INTEGER DEFAULT 0 NOT NULL, 
	created_at BIGINT NOT NULL, 
	due_at BIGINT NOT NULL, 
	ended_at BIGINT, 
	CONSTRAINT pk_deliveries PRIMARY KEY (id), 
	CONSTRAINT fk_deliveries_line_id FOREIGN KEY(line_id) REFERENCES webhook_lines (id), 
	CONSTRAINT fk_deliveries_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id), 
	CONSTRAINT fk_deliveries_webhook_id FOREIGN KEY(webhook_id) REFERENCES webhooks (id), 
	CONSTRAINT fk_deliveries_event_sequence FOREIGN KEY(event_sequence) REFERENCES events (sequence)
);
CREATE TABLE delivery_attempts (
	delivery_id VARCHAR(40) NOT NULL, 
	number INTEGER NOT NULL, 
	at BIGINT NOT NULL, 
	duration_ms INTEGER NOT NULL, 
	status_code INTEGER, 
	error TEXT, 
	response TEXT, 
	CONSTRAINT pk_delivery_attempts PRIMARY KEY (delivery_id, number), 
	CONSTRAINT fk_delivery_attempts_delivery_id FOREIGN KEY(delivery_id) REFERENCES deliveries (id)
);
CREATE TABLE "events" (
	sequence INTEGER NOT NULL, 
	id VARCHAR(40) NOT NULL, 
	instance_id VARCHAR(40), 
	type VARCHAR(64) NOT NULL, 
	at BIGINT NOT NULL, 
	data TEXT NOT NULL, actor TEXT, 
	CONSTRAINT pk_events PRIMARY KEY (sequence), 
	CONSTRAINT uq_events_id UNIQUE (id), 
	CONSTRAINT fk_events_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id)
);
CREATE TABLE idempotency_keys (
	api_key_id VARCHAR(40) NOT NULL, 
	route VARCHAR(255) NOT NULL, 
	"key" VARCHAR(255) NOT NULL, 
	body_digest VARCHAR(64) NOT NULL, 
	status INTEGER NOT NULL, 
	headers TEXT NOT NULL, 
	body BLOB NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_idempotency_keys PRIMARY KEY (api_key_id, route, "key")
);
CREATE TABLE installation (
	name VARCHAR(64) NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_installation PRIMARY KEY (name)
);
CREATE TABLE instance_tags (
	instance_id VARCHAR(40) NOT NULL, 
	name VARCHAR(63) NOT NULL, 
	value VARCHAR(256) NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_instance_tags PRIMARY KEY (instance_id, name), 
	CONSTRAINT fk_instance_tags_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id)
);
CREATE TABLE "instances" (
	id VARCHAR(40) NOT NULL, 
	name VARCHAR(100) NOT NULL, 
	status VARCHAR(20) NOT NULL, 
	product_name VARCHAR(255) NOT NULL, 
	template_id VARCHAR(255) NOT NULL, 
	gpu_num INTEGER NOT NULL, 
	rootfs_size INTEGER NOT NULL, 
	region VARCHAR(255) NOT NULL, 
	billing_mode VARCHAR(16) NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	product_id VARCHAR(255), 
	cluster_id VARCHAR(255), 
	region_fallback BOOLEAN DEFAULT 0 NOT NULL, 
	max_hourly_price BIGINT, 
	hourly_price BIGINT, 
	webhook_url TEXT, 
	launch_sealed BLOB NOT NULL, 
	upstream_id VARCHAR(255), 
	bought_at BIGINT, 
	ever_ran BOOLEAN DEFAULT 0 NOT NULL, 
	first_ready_at BIGINT, 
	ready_at BIGINT, 
	started_at BIGINT, 
	stopped_at BIGINT, 
	terminated_at BIGINT, 
	last_used_at BIGINT, 
	acted_at BIGINT, 
	failed BOOLEAN DEFAULT 0 NOT NULL, 
	error_code VARCHAR(64), 
	error_message TEXT, 
	error_at BIGINT, 
	obs_status VARCHAR(64), 
	obs_at BIGINT, 
	obs_error TEXT, 
	obs_port_mappings TEXT DEFAULT '[]' NOT NULL, 
	obs_ssh TEXT, 
	obs_jupyter TEXT, 
	obs_web_terminal TEXT, 
	obs_credentials_sealed BLOB, 
	obs_spot_status VARCHAR(64), 
	obs_spot_reclaim_at BIGINT, 
	obs_digest VARCHAR(32), 
	obs_missing_since BIGINT, 
	obs_missing_count INTEGER DEFAULT 0 NOT NULL, 
	obs_gone BOOLEAN DEFAULT 0 NOT NULL, 
	origin VARCHAR(16) DEFAULT 'created' NOT NULL, 
	confirmed_at BIGINT, 
	upstream_created_at BIGINT, 
	released_at BIGINT, 
	identity_told_at BIGINT, 
	deleted_again INTEGER DEFAULT 0 NOT NULL, 
	late_call VARCHAR(16), 
	late_call_at BIGINT, 
	obs_unlisted_since BIGINT, 
	obs_unlisted_count INTEGER DEFAULT 0 NOT NULL, 
	obs_unmarked_count INTEGER DEFAULT 0 NOT NULL, obs_hourly_price BIGINT, changed_in BIGINT DEFAULT 0 NOT NULL, tags TEXT DEFAULT '{}' NOT NULL, created_by_key_id VARCHAR(40), created_by_name VARCHAR(100), obs_run_began_at BIGINT, obs_exited_at BIGINT, obs_purge_at BIGINT, limits TEXT, protected_reason TEXT, stops_at BIGINT, stop_reason VARCHAR(32), unenforced BOOLEAN DEFAULT 0 NOT NULL, limit_memory TEXT DEFAULT '{}' NOT NULL, limit_fired_at BIGINT, review_due_at BIGINT, quote_id VARCHAR(40), auto_stop TEXT, auto_stop_memory TEXT DEFAULT '{}' NOT NULL, auto_stop_state VARCHAR(16) DEFAULT 'armed' NOT NULL, auto_stops_at BIGINT, sample_due_at BIGINT, reserved_rate BIGINT, reserved_length BIGINT, reserved_at BIGINT, inherited_limits TEXT, removed_at BIGINT, 
	CONSTRAINT pk_instances PRIMARY KEY (id)
);
CREATE TABLE leases (
	name VARCHAR(64) NOT NULL, 
	holder VARCHAR(64) NOT NULL, 
	until BIGINT NOT NULL, 
	CONSTRAINT pk_leases PRIMARY KEY (name)
);
CREATE TABLE listed_instances (
	upstream_id VARCHAR(255) NOT NULL, 
	first_listed_at BIGINT NOT NULL, 
	orphan_at BIGINT, 
	dismissed_at BIGINT, 
	deleted_at BIGINT, last_listed_at BIGINT, attempt_id VARCHAR(16), 
	CONSTRAINT pk_listed_instances PRIMARY KEY (upstream_id)
);
CREATE TABLE listings (
	name VARCHAR(16) NOT NULL, 
	began_at BIGINT NOT NULL, 
	complete_at BIGINT, 
	whole_at BIGINT, incomplete_count INTEGER DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_listings PRIMARY KEY (name)
);
CREATE TABLE login_codes (
	id VARCHAR(40) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	key_id VARCHAR(40) NOT NULL, 
	settings_key_digest VARCHAR(64), 
	expires_at BIGINT NOT NULL, 
	CONSTRAINT pk_login_codes PRIMARY KEY (id), 
	CONSTRAINT uq_login_codes_digest UNIQUE (digest)
);
CREATE TABLE operations (
	id VARCHAR(40) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	instance_id VARCHAR(40), 
	phase VARCHAR(20) NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	token BIGINT DEFAULT 0 NOT NULL, 
	wake BIGINT DEFAULT 0 NOT NULL, 
	attempts INTEGER DEFAULT 0 NOT NULL, 
	done BOOLEAN DEFAULT 0 NOT NULL, 
	outcome VARCHAR(20), 
	deadline_at BIGINT, 
	next_step_at BIGINT, 
	lease_until BIGINT, 
	error_code VARCHAR(64), 
	error_message TEXT, 
	memory TEXT DEFAULT '{}' NOT NULL, changed_in BIGINT DEFAULT 0 NOT NULL, actor TEXT, 
	CONSTRAINT pk_operations PRIMARY KEY (id), 
	CONSTRAINT fk_operations_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id)
);
CREATE TABLE quotes (
	id VARCHAR(40) NOT NULL, 
	created_at BIGINT NOT NULL, 
	expires_at BIGINT NOT NULL, 
	product_name VARCHAR(255) NOT NULL, 
	template_id VARCHAR(255) NOT NULL, 
	gpu_num INTEGER NOT NULL, 
	rootfs_size INTEGER NOT NULL, 
	region VARCHAR(255) NOT NULL, 
	billing_mode VARCHAR(16) NOT NULL, 
	region_fallback BOOLEAN NOT NULL, 
	offers TEXT NOT NULL, 
	CONSTRAINT pk_quotes PRIMARY KEY (id)
);
CREATE TABLE sessions (
	id VARCHAR(40) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	key_id VARCHAR(40) NOT NULL, 
	settings_key_digest VARCHAR(64), 
	created_at BIGINT NOT NULL, 
	last_used_at BIGINT NOT NULL, 
	expires_at BIGINT NOT NULL, 
	CONSTRAINT pk_sessions PRIMARY KEY (id), 
	CONSTRAINT uq_sessions_digest UNIQUE (digest)
);
CREATE TABLE unmanaged_instances (
	upstream_id VARCHAR(255) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	status VARCHAR(64) NOT NULL, 
	marker VARCHAR(32) NOT NULL, 
	attempt_known BOOLEAN NOT NULL, 
	orphan BOOLEAN NOT NULL, 
	hourly_price BIGINT, 
	created_at BIGINT, 
	region VARCHAR(255) NOT NULL, 
	product_id VARCHAR(255) NOT NULL, 
	product_name VARCHAR(255) NOT NULL, 
	gpu_num INTEGER, 
	rootfs_size INTEGER, 
	billing_mode VARCHAR(16) NOT NULL, 
	cluster_id VARCHAR(255) NOT NULL, 
	image VARCHAR(500) NOT NULL, 
	CONSTRAINT pk_unmanaged_instances PRIMARY KEY (upstream_id)
);
CREATE TABLE "webhook_lines" (
	id VARCHAR(40) NOT NULL, 
	instance_id VARCHAR(40), 
	webhook_id VARCHAR(40) NOT NULL, 
	host VARCHAR(300) NOT NULL, 
	token BIGINT DEFAULT 0 NOT NULL, 
	next_try_at BIGINT, 
	lease_until BIGINT, 
	spared_until BIGINT, 
	CONSTRAINT pk_webhook_lines PRIMARY KEY (id), 
	CONSTRAINT fk_webhook_lines_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id), 
	CONSTRAINT fk_webhook_lines_webhook_id FOREIGN KEY(webhook_id) REFERENCES webhooks (id)
);
CREATE TABLE webhooks (
	id VARCHAR(40) NOT NULL, 
	standing BOOLEAN NOT NULL, 
	url TEXT NOT NULL, 
	event_types TEXT DEFAULT '[]' NOT NULL, 
	enabled BOOLEAN NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	description TEXT, 
	secret_sealed BLOB, 
	previous_secret_sealed BLOB, 
	previous_secret_until BIGINT, 
	failing_since BIGINT, 
	failed_at BIGINT, 
	off_at BIGINT, 
	off_reason VARCHAR(20), 
	deleted_at BIGINT, 
	CONSTRAINT pk_webhooks PRIMARY KEY (id)
);
CREATE TABLE workers (
	id VARCHAR(64) NOT NULL, 
	started_at BIGINT NOT NULL, 
	seen_at BIGINT NOT NULL, 
	CONSTRAINT pk_workers PRIMARY KEY (id)
);
CREATE INDEX ix_idempotency_keys_created_at ON idempotency_keys (created_at);
CREATE INDEX ix_operations_due ON operations (kind, next_step_at) WHERE done = 0;
CREATE INDEX ix_operations_instance_id ON operations (instance_id);
CREATE UNIQUE INDEX uq_operations_running ON operations (instance_id) WHERE done = 0;
CREATE INDEX ix_attempts_instance_id ON attempts (instance_id);
CREATE INDEX ix_attempts_unsettled ON attempts (created_at) WHERE state IN ('sent', 'unknown');
CREATE INDEX ix_webhooks_listening ON webhooks (id) WHERE standing = 1 AND enabled = 1;
CREATE INDEX ix_webhooks_created_at_id ON webhooks (created_at, id);
CREATE INDEX ix_instances_name ON instances (name);
CREATE INDEX ix_instances_product_ready ON instances (product_name, created_at) WHERE first_ready_at IS NOT NULL;
CREATE INDEX ix_instances_created_at_id ON instances (created_at, id);
CREATE INDEX ix_instances_status_created_at ON instances (status, created_at);
CREATE UNIQUE INDEX uq_instances_live_upstream_id ON instances (upstream_id) WHERE status NOT IN ('terminated', 'released');
CREATE INDEX ix_instances_upstream_id ON instances (upstream_id);
CREATE INDEX ix_events_instance_id_sequence ON events (instance_id, sequence);
CREATE UNIQUE INDEX uq_webhook_lines_instance_id_webhook_id ON webhook_lines (instance_id, webhook_id);
CREATE INDEX ix_webhook_lines_due ON webhook_lines (next_try_at) WHERE next_try_at IS NOT NULL;
CREATE INDEX ix_webhook_lines_webhook_id_next_try_at ON webhook_lines (webhook_id, next_try_at);
CREATE INDEX ix_deliveries_instance_id_event_sequence ON deliveries (instance_id, event_sequence);
CREATE INDEX ix_deliveries_waiting ON deliveries (line_id, event_sequence) WHERE status = 'pending';
CREATE UNIQUE INDEX uq_deliveries_webhook_id_event_sequence ON deliveries (webhook_id, event_sequence);
CREATE INDEX ix_deliveries_oldest ON deliveries (created_at) WHERE status = 'pending';
CREATE UNIQUE INDEX uq_webhook_lines_account_webhook_id ON webhook_lines (webhook_id) WHERE instance_id IS NULL;
CREATE INDEX ix_instances_changed_in ON instances (changed_in);
CREATE INDEX ix_operations_changed_in ON operations (changed_in);
CREATE TRIGGER instances_number_insert AFTER insert ON instances  BEGIN UPDATE instances SET changed_in = (SELECT max(changed_in) + 1 FROM instances) WHERE rowid = NEW.rowid; END;
CREATE TRIGGER instances_number_update AFTER update ON instances WHEN NEW.changed_in = OLD.changed_in BEGIN UPDATE instances SET changed_in = (SELECT max(changed_in) + 1 FROM instances) WHERE rowid = NEW.rowid; END;
CREATE TRIGGER operations_number_insert AFTER insert ON operations  BEGIN UPDATE operations SET changed_in = (SELECT max(changed_in) + 1 FROM operations) WHERE rowid = NEW.rowid; END;
CREATE TRIGGER operations_number_update AFTER update ON operations WHEN NEW.changed_in = OLD.changed_in AND (OLD.phase <> NEW.phase OR OLD.done <> NEW.done) BEGIN UPDATE operations SET changed_in = (SELECT max(changed_in) + 1 FROM operations) WHERE rowid = NEW.rowid; END;
CREATE INDEX ix_billing_states_unended ON billing_states (instance_id) WHERE NOT ended;
CREATE INDEX ix_billing_spans_instance_id ON billing_spans (instance_id, upstream_id);
CREATE INDEX ix_billing_spans_ended_by ON billing_spans (ended_by);
CREATE INDEX ix_instance_tags_listed ON instance_tags (name, value, created_at, instance_id);
CREATE INDEX ix_instances_review_due_at ON instances (review_due_at) WHERE review_due_at IS NOT NULL;
CREATE INDEX ix_instances_limit_fired_at ON instances (limit_fired_at) WHERE limit_fired_at IS NOT NULL;
CREATE INDEX ix_instances_unenforced ON instances (id) WHERE unenforced;
CREATE INDEX ix_operations_stops ON operations (updated_at) WHERE kind = 'stop' AND outcome = 'succeeded';
CREATE INDEX ix_quotes_expires_at ON quotes (expires_at);
CREATE INDEX ix_instances_quote_id ON instances (quote_id) WHERE quote_id IS NOT NULL;
CREATE INDEX ix_instances_sample_due_at ON instances (sample_due_at) WHERE sample_due_at IS NOT NULL;
CREATE INDEX ix_instances_reserved_at ON instances (reserved_at) WHERE reserved_at IS NOT NULL;
CREATE INDEX ix_cost_findings_told_at ON cost_findings (told_at);
CREATE INDEX ix_instances_created_by_key_id ON instances (created_by_key_id);
CREATE INDEX ix_budgets_key_id ON budgets (key_id);
CREATE INDEX ix_operations_created_at_id ON operations (created_at, id);
CREATE INDEX ix_deliveries_event_sequence_id ON deliveries (event_sequence, id);
CREATE INDEX ix_deliveries_dead ON deliveries (event_sequence, id) WHERE status = 'dead';
CREATE INDEX ix_sessions_expires_at ON sessions (expires_at);
CREATE INDEX ix_login_codes_expires_at ON login_codes (expires_at);
CREATE INDEX ix_listed_instances_attempt_id ON listed_instances (attempt_id) WHERE attempt_id IS NOT NULL;
