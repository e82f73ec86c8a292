
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE FUNCTION public.octo_campaign_changes() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    NEW.version := OLD.version + 1;
    NEW.changed_xid := pg_current_xact_id();
    NEW.updated_at := now();
    RETURN NEW;
END $$;

CREATE FUNCTION public.octo_campaign_told() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_notify('octo_campaigns', lower(TG_OP));
    RETURN NULL;
END $$;

CREATE FUNCTION public.octo_destination_changes() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    UPDATE campaigns SET updated_at = now() WHERE id IN (NEW.campaign_id, OLD.campaign_id);
    RETURN NULL;
END $$;

CREATE FUNCTION public.octo_drop_partitions(cutoff timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    AS $_$
DECLARE
    part    record;
    dropped integer := 0;
BEGIN
    FOR part IN
        SELECT c.relname AS name, p.relname AS parent
        FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid
        JOIN pg_class p ON p.oid = i.inhparent
        WHERE p.relname IN ('clicks', 'events')
          AND c.relname ~ '^(clicks|events)_[0-9]{8}$'
          AND (to_date(right(c.relname, 8), 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC' <= cutoff
        ORDER BY c.relname
    LOOP
        EXECUTE format('DROP TABLE %I', part.name);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM clicks_default WHERE created_at < cutoff;
    DELETE FROM events_default WHERE created_at < cutoff;
    DELETE FROM event_keys WHERE created_at < cutoff;
    DELETE FROM dead_letters WHERE created_at < cutoff;
    RETURN dropped;
END $_$;

CREATE FUNCTION public.octo_lock_for_erasure() RETURNS boolean
    LANGUAGE plpgsql
    AS $$
BEGIN
    LOCK TABLE ingest_watermark, dead_letters IN EXCLUSIVE MODE;
    RETURN true;
END $$;

CREATE FUNCTION public.octo_make_partitions(ahead integer) RETURNS integer
    LANGUAGE plpgsql
    AS $$
DECLARE
    parent text;
    day    date;
    name   text;
    made   integer := 0;
BEGIN
    FOREACH parent IN ARRAY ARRAY['clicks', 'events'] LOOP
        FOR day IN SELECT generate_series((now() AT TIME ZONE 'UTC')::date - 2, (now() AT TIME ZONE 'UTC')::date + ahead, '1 day')::date LOOP
            name := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
            CONTINUE WHEN to_regclass(name) IS NOT NULL;
            BEGIN
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parent);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name,
                    day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
                made := made + 1;
            EXCEPTION WHEN check_violation OR duplicate_table THEN
                NULL; -- rows of that day are in the DEFAULT partition, or another node was faster
            END;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;

SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE public._sqlx_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);

CREATE TABLE public.api_tokens (
    id uuid NOT NULL,
    name text NOT NULL,
    scope text NOT NULL,
    token_sha256 bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    CONSTRAINT api_tokens_name_check CHECK (((length(name) >= 1) AND (length(name) <= 255))),
    CONSTRAINT api_tokens_scope_check CHECK ((scope = ANY (ARRAY['admin'::text, 'read'::text, 'ingest'::text]))),
    CONSTRAINT api_tokens_token_sha256_check CHECK ((length(token_sha256) = 32))
);

CREATE TABLE public.campaign_stats_hourly (
    campaign_id uuid NOT NULL,
    hour timestamp with time zone NOT NULL,
    clicks bigint DEFAULT 0 NOT NULL,
    valid_clicks bigint DEFAULT 0 NOT NULL,
    bot_clicks bigint DEFAULT 0 NOT NULL,
    events bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='70');

CREATE TABLE public.campaigns (
    id uuid NOT NULL,
    key text NOT NULL,
    name text NOT NULL,
    description text,
    status text NOT NULL,
    start_at timestamp with time zone,
    end_at timestamp with time zone,
    cost_model text NOT NULL,
    payout_amount numeric(18,6),
    payout_currency text,
    daily_budget_amount numeric(18,6),
    daily_budget_currency text,
    total_budget_amount numeric(18,6),
    total_budget_currency text,
    fallback_url text,
    pass_through boolean DEFAULT false NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    changed_xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    deleted_at timestamp with time zone,
    CONSTRAINT campaigns_cost_model_check CHECK ((cost_model = ANY (ARRAY['cpc'::text, 'cpa'::text, 'cpm'::text, 'revshare'::text]))),
    CONSTRAINT campaigns_daily_budget_amount_check CHECK ((daily_budget_amount >= (0)::numeric)),
    CONSTRAINT campaigns_key_check CHECK ((key ~ '^[A-Za-z0-9._-]{1,64}$'::text)),
    CONSTRAINT campaigns_name_check CHECK (((length(name) >= 1) AND (length(name) <= 255))),
    CONSTRAINT campaigns_payout_amount_check CHECK ((payout_amount >= (0)::numeric)),
    CONSTRAINT campaigns_status_check CHECK ((status = ANY (ARRAY['draft'::text, 'active'::text, 'paused'::text, 'completed'::text, 'cancelled'::text]))),
    CONSTRAINT campaigns_total_budget_amount_check CHECK ((total_budget_amount >= (0)::numeric))
);

CREATE TABLE public.clicks (
    id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    ip_address inet,
    user_agent text,
    referrer text,
    is_valid boolean NOT NULL,
    invalid_reason text,
    is_bot boolean NOT NULL,
    country text,
    device text,
    os text,
    browser text,
    sub1 text,
    sub2 text,
    sub3 text,
    sub4 text,
    sub5 text,
    click_id_param text,
    affiliate_sub text,
    affiliate_sub2 text,
    affiliate_sub3 text,
    affiliate_sub4 text,
    affiliate_sub5 text,
    landing_page_id bigint,
    campaign_offer_id bigint,
    traffic_source_id text,
    cost numeric(18,6),
    currency text,
    conversion_type text,
    converted_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
)
PARTITION BY RANGE (created_at);

CREATE TABLE public.clicks_20261127 (
    id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    ip_address inet,
    user_agent text,
    referrer text,
    is_valid boolean NOT NULL,
    invalid_reason text,
    is_bot boolean NOT NULL,
    country text,
    device text,
    os text,
    browser text,
    sub1 text,
    sub2 text,
    sub3 text,
    sub4 text,
    sub5 text,
    click_id_param text,
    affiliate_sub text,
    affiliate_sub2 text,
    affiliate_sub3 text,
    affiliate_sub4 text,
    affiliate_sub5 text,
    landing_page_id bigint,
    campaign_offer_id bigint,
    traffic_source_id text,
    cost numeric(18,6),
    currency text,
    conversion_type text,
    converted_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE public.clicks_20261128 (
    id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    ip_address inet,
    user_agent text,
    referrer text,
    is_valid boolean NOT NULL,
    invalid_reason text,
    is_bot boolean NOT NULL,
    country text,
    device text,
    os text,
    browser text,
    sub1 text,
    sub2 text,
    sub3 text,
    sub4 text,
    sub5 text,
    click_id_param text,
    affiliate_sub text,
    affiliate_sub2 text,
    affiliate_sub3 text,
    affiliate_sub4 text,
    affiliate_sub5 text,
    landing_page_id bigint,
    campaign_offer_id bigint,
    traffic_source_id text,
    cost numeric(18,6),
    currency text,
    conversion_type text,
    converted_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE public.clicks_20261129 (
    id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    ip_address inet,
    user_agent text,
    referrer text,
    is_valid boolean NOT NULL,
    invalid_reason text,
    is_bot boolean NOT NULL,
    country text,
    device text,
    os text,
    browser text,
    sub1 text,
    sub2 text,
    sub3 text,
    sub4 text,
    sub5 text,
    click_id_param text,
    affiliate_sub text,
    affiliate_sub2 text,
    affiliate_sub3 text,
    affiliate_sub4 text,
    affiliate_sub5 text,
    landing_page_id bigint,
    campaign_offer_id bigint,
    traffic_source_id text,
    cost numeric(18,6),
    currency text,
    conversion_type text,
    converted_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE public.clicks_20261130 (
    id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    ip_address inet,
    user_agent text,
    referrer text,
    is_valid boolean NOT NULL,
    invalid_reason text,
    is_bot boolean NOT NULL,
    country text,
    device text,
    os text,
    browser text,
    sub1 text,
    sub2 text,
    sub3 text,
    sub4 text,
    sub5 text,
    click_id_param text,
    affiliate_sub text,
    affiliate_sub2 text,
    affiliate_sub3 text,
    affiliate_sub4 text,
    affiliate_sub5 text,
    landing_page_id bigint,
    campaign_offer_id bigint,
    traffic_source_id text,
    cost numeric(18,6),
    currency text,
    conversion_type text,
    converted_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE public.clicks_20261201 (
    id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    ip_address inet,
    user_agent text,
    referrer text,
    is_valid boolean NOT NULL,
    invalid_reason text,
    is_bot boolean NOT NULL,
    country text,
    device text,
    os text,
    browser text,
    sub1 text,
    sub2 text,
    sub3 text,
    sub4 text,
    sub5 text,
    click_id_param text,
    affiliate_sub text,
    affiliate_sub2 text,
    affiliate_sub3 text,
    affiliate_sub4 text,
    affiliate_sub5 text,
    landing_page_id bigint,
    campaign_offer_id bigint,
    traffic_source_id text,
    cost numeric(18,6),
    currency text,
    conversion_type text,
    converted_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE public.clicks_20261202 (
    id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    ip_address inet,
    user_agent text,
    referrer text,
    is_valid boolean NOT NULL,
    invalid_reason text,
    is_bot boolean NOT NULL,
    country text,
    device text,
    os text,
    browser text,
    sub1 text,
    sub2 text,
    sub3 text,
    sub4 text,
    sub5 text,
    click_id_param text,
    affiliate_sub text,
    affiliate_sub2 text,
    affiliate_sub3 text,
    affiliate_sub4 text,
    affiliate_sub5 text,
    landing_page_id bigint,
    campaign_offer_id bigint,
    traffic_source_id text,
    cost numeric(18,6),
    currency text,
    conversion_type text,
    converted_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE public.clicks_20261203 (
    id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    ip_address inet,
    user_agent text,
    referrer text,
    is_valid boolean NOT NULL,
    invalid_reason text,
    is_bot boolean NOT NULL,
    country text,
    device text,
    os text,
    browser text,
    sub1 text,
    sub2 text,
    sub3 text,
    sub4 text,
    sub5 text,
    click_id_param text,
    affiliate_sub text,
    affiliate_sub2 text,
    affiliate_sub3 text,
    affiliate_sub4 text,
    affiliate_sub5 text,
    landing_page_id bigint,
    campaign_offer_id bigint,
    traffic_source_id text,
    cost numeric(18,6),
    currency text,
    conversion_type text,
    converted_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE public.clicks_20261204 (
    id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    ip_address inet,
    user_agent text,
    referrer text,
    is_valid boolean NOT NULL,
    invalid_reason text,
    is_bot boolean NOT NULL,
    country text,
    device text,
    os text,
    browser text,
    sub1 text,
    sub2 text,
    sub3 text,
    sub4 text,
    sub5 text,
    click_id_param text,
    affiliate_sub text,
    affiliate_sub2 text,
    affiliate_sub3 text,
    affiliate_sub4 text,
    affiliate_sub5 text,
    landing_page_id bigint,
    campaign_offer_id bigint,
    traffic_source_id text,
    cost numeric(18,6),
    currency text,
    conversion_type text,
    converted_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE public.clicks_20261205 (
    id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    ip_address inet,
    user_agent text,
    referrer text,
    is_valid boolean NOT NULL,
    invalid_reason text,
    is_bot boolean NOT NULL,
    country text,
    device text,
    os text,
    browser text,
    sub1 text,
    sub2 text,
    sub3 text,
    sub4 text,
    sub5 text,
    click_id_param text,
    affiliate_sub text,
    affiliate_sub2 text,
    affiliate_sub3 text,
    affiliate_sub4 text,
    affiliate_sub5 text,
    landing_page_id bigint,
    campaign_offer_id bigint,
    traffic_source_id text,
    cost numeric(18,6),
    currency text,
    conversion_type text,
    converted_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE public.clicks_20261206 (
    id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    ip_address inet,
    user_agent text,
    referrer text,
    is_valid boolean NOT NULL,
    invalid_reason text,
    is_bot boolean NOT NULL,
    country text,
    device text,
    os text,
    browser text,
    sub1 text,
    sub2 text,
    sub3 text,
    sub4 text,
    sub5 text,
    click_id_param text,
    affiliate_sub text,
    affiliate_sub2 text,
    affiliate_sub3 text,
    affiliate_sub4 text,
    affiliate_sub5 text,
    landing_page_id bigint,
    campaign_offer_id bigint,
    traffic_source_id text,
    cost numeric(18,6),
    currency text,
    conversion_type text,
    converted_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE public.clicks_default (
    id uuid NOT NULL,
    campaign_id uuid NOT NULL,
    ip_address inet,
    user_agent text,
    referrer text,
    is_valid boolean NOT NULL,
    invalid_reason text,
    is_bot boolean NOT NULL,
    country text,
    device text,
    os text,
    browser text,
    sub1 text,
    sub2 text,
    sub3 text,
    sub4 text,
    sub5 text,
    click_id_param text,
    affiliate_sub text,
    affiliate_sub2 text,
    affiliate_sub3 text,
    affiliate_sub4 text,
    affiliate_sub5 text,
    landing_page_id bigint,
    campaign_offer_id bigint,
    traffic_source_id text,
    cost numeric(18,6),
    currency text,
    conversion_type text,
    converted_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

CREATE TABLE public.dead_letters (
    id bigint NOT NULL,
    stream uuid NOT NULL,
    seq bigint NOT NULL,
    record bytea NOT NULL,
    sqlstate text NOT NULL,
    message text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE public.dead_letters ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.dead_letters_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.erasures (
    id bigint NOT NULL,
    click_id uuid,
    sub_hash bytea,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT erasures_check CHECK (((click_id IS NULL) <> (sub_hash IS NULL)))
);

ALTER TABLE public.erasures ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.erasures_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.event_keys (
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE public.events (
    id uuid NOT NULL,
    click_id uuid,
    campaign_id uuid,
    event_type text NOT NULL,
    event_name text,
    event_data jsonb,
    url text,
    referrer text,
    session_id text,
    user_id text,
    created_at timestamp with time zone NOT NULL
)
PARTITION BY RANGE (created_at);

CREATE TABLE public.events_20261127 (
    id uuid NOT NULL,
    click_id uuid,
    campaign_id uuid,
    event_type text NOT NULL,
    event_name text,
    event_data jsonb,
    url text,
    referrer text,
    session_id text,
    user_id text,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE public.events_20261128 (
    id uuid NOT NULL,
    click_id uuid,
    campaign_id uuid,
    event_type text NOT NULL,
    event_name text,
    event_data jsonb,
    url text,
    referrer text,
    session_id text,
    user_id text,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE public.events_20261129 (
    id uuid NOT NULL,
    click_id uuid,
    campaign_id uuid,
    event_type text NOT NULL,
    event_name text,
    event_data jsonb,
    url text,
    referrer text,
    session_id text,
    user_id text,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE public.events_20261130 (
    id uuid NOT NULL,
    click_id uuid,
    campaign_id uuid,
    event_type text NOT NULL,
    event_name text,
    event_data jsonb,
    url text,
    referrer text,
    session_id text,
    user_id text,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE public.events_20261201 (
    id uuid NOT NULL,
    click_id uuid,
    campaign_id uuid,
    event_type text NOT NULL,
    event_name text,
    event_data jsonb,
    url text,
    referrer text,
    session_id text,
    user_id text,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE public.events_20261202 (
    id uuid NOT NULL,
    click_id uuid,
    campaign_id uuid,
    event_type text NOT NULL,
    event_name text,
    event_data jsonb,
    url text,
    referrer text,
    session_id text,
    user_id text,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE public.events_20261203 (
    id uuid NOT NULL,
    click_id uuid,
    campaign_id uuid,
    event_type text NOT NULL,
    event_name text,
    event_data jsonb,
    url text,
    referrer text,
    session_id text,
    user_id text,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE public.events_20261204 (
    id uuid NOT NULL,
    click_id uuid,
    campaign_id uuid,
    event_type text NOT NULL,
    event_name text,
    event_data jsonb,
    url text,
    referrer text,
    session_id text,
    user_id text,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE public.events_20261205 (
    id uuid NOT NULL,
    click_id uuid,
    campaign_id uuid,
    event_type text NOT NULL,
    event_name text,
    event_data jsonb,
    url text,
    referrer text,
    session_id text,
    user_id text,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE public.events_20261206 (
    id uuid NOT NULL,
    click_id uuid,
    campaign_id uuid,
    event_type text NOT NULL,
    event_name text,
    event_data jsonb,
    url text,
    referrer text,
    session_id text,
    user_id text,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE public.events_default (
    id uuid NOT NULL,
    click_id uuid,
    campaign_id uuid,
    event_type text NOT NULL,
    event_name text,
    event_data jsonb,
    url text,
    referrer text,
    session_id text,
    user_id text,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE public.idempotency_keys (
    token_id uuid NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    object_id uuid NOT NULL,
    attempt integer DEFAULT 1 NOT NULL,
    locked_until timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    status smallint,
    headers jsonb,
    body bytea,
    CONSTRAINT idempotency_keys_fingerprint_check CHECK ((length(fingerprint) = 32)),
    CONSTRAINT idempotency_keys_key_check CHECK (((length(key) >= 1) AND (length(key) <= 255)))
);

CREATE TABLE public.ingest_watermark (
    stream uuid NOT NULL,
    seq bigint NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ingest_watermark_seq_check CHECK ((seq >= 0))
)
WITH (fillfactor='50');

CREATE TABLE public.landing_pages (
    id bigint NOT NULL,
    campaign_id uuid NOT NULL,
    "position" integer NOT NULL,
    name text NOT NULL,
    url text NOT NULL,
    weight integer NOT NULL,
    is_active boolean NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT landing_pages_name_check CHECK (((length(name) >= 1) AND (length(name) <= 255))),
    CONSTRAINT landing_pages_weight_check CHECK (((weight >= 0) AND (weight <= 1000000)))
);

ALTER TABLE public.landing_pages ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.landing_pages_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.offers (
    id bigint NOT NULL,
    campaign_id uuid NOT NULL,
    "position" integer NOT NULL,
    name text NOT NULL,
    url text NOT NULL,
    weight integer NOT NULL,
    is_active boolean NOT NULL,
    payout_amount numeric(18,6),
    payout_currency text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT offers_name_check CHECK (((length(name) >= 1) AND (length(name) <= 255))),
    CONSTRAINT offers_payout_amount_check CHECK ((payout_amount >= (0)::numeric)),
    CONSTRAINT offers_weight_check CHECK (((weight >= 0) AND (weight <= 1000000)))
);

ALTER TABLE public.offers ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.offers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.traffic_sources (
    id bigint NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT traffic_sources_name_check CHECK (((length(name) >= 1) AND (length(name) <= 255)))
);

ALTER TABLE public.traffic_sources ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.traffic_sources_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.visitor_keys (
    day date NOT NULL,
    key bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT visitor_keys_key_check CHECK ((length(key) = 16))
);

ALTER TABLE ONLY public.clicks ATTACH PARTITION public.clicks_20261127 FOR VALUES FROM ('2026-11-27 00:00:00+00') TO ('2026-11-28 00:00:00+00');

ALTER TABLE ONLY public.clicks ATTACH PARTITION public.clicks_20261128 FOR VALUES FROM ('2026-11-28 00:00:00+00') TO ('2026-11-29 00:00:00+00');

ALTER TABLE ONLY public.clicks ATTACH PARTITION public.clicks_20261129 FOR VALUES FROM ('2026-11-29 00:00:00+00') TO ('2026-11-30 00:00:00+00');

ALTER TABLE ONLY public.clicks ATTACH PARTITION public.clicks_20261130 FOR VALUES FROM ('2026-11-30 00:00:00+00') TO ('2026-12-01 00:00:00+00');

ALTER TABLE ONLY public.clicks ATTACH PARTITION public.clicks_20261201 FOR VALUES FROM ('2026-12-01 00:00:00+00') TO ('2026-12-02 00:00:00+00');

ALTER TABLE ONLY public.clicks ATTACH PARTITION public.clicks_20261202 FOR VALUES FROM ('2026-12-02 00:00:00+00') TO ('2026-12-03 00:00:00+00');

ALTER TABLE ONLY public.clicks ATTACH PARTITION public.clicks_20261203 FOR VALUES FROM ('2026-12-03 00:00:00+00') TO ('2026-12-04 00:00:00+00');

ALTER TABLE ONLY public.clicks ATTACH PARTITION public.clicks_20261204 FOR VALUES FROM ('2026-12-04 00:00:00+00') TO ('2026-12-05 00:00:00+00');

ALTER TABLE ONLY public.clicks ATTACH PARTITION public.clicks_20261205 FOR VALUES FROM ('2026-12-05 00:00:00+00') TO ('2026-12-06 00:00:00+00');

ALTER TABLE ONLY public.clicks ATTACH PARTITION public.clicks_20261206 FOR VALUES FROM ('2026-12-06 00:00:00+00') TO ('2026-12-07 00:00:00+00');

ALTER TABLE ONLY public.clicks ATTACH PARTITION public.clicks_default DEFAULT;

ALTER TABLE ONLY public.events ATTACH PARTITION public.events_20261127 FOR VALUES FROM ('2026-11-27 00:00:00+00') TO ('2026-11-28 00:00:00+00');

ALTER TABLE ONLY public.events ATTACH PARTITION public.events_20261128 FOR VALUES FROM ('2026-11-28 00:00:00+00') TO ('2026-11-29 00:00:00+00');

ALTER TABLE ONLY public.events ATTACH PARTITION public.events_20261129 FOR VALUES FROM ('2026-11-29 00:00:00+00') TO ('2026-11-30 00:00:00+00');

ALTER TABLE ONLY public.events ATTACH PARTITION public.events_20261130 FOR VALUES FROM ('2026-11-30 00:00:00+00') TO ('2026-12-01 00:00:00+00');

ALTER TABLE ONLY public.events ATTACH PARTITION public.events_20261201 FOR VALUES FROM ('2026-12-01 00:00:00+00') TO ('2026-12-02 00:00:00+00');

ALTER TABLE ONLY public.events ATTACH PARTITION public.events_20261202 FOR VALUES FROM ('2026-12-02 00:00:00+00') TO ('2026-12-03 00:00:00+00');

ALTER TABLE ONLY public.events ATTACH PARTITION public.events_20261203 FOR VALUES FROM ('2026-12-03 00:00:00+00') TO ('2026-12-04 00:00:00+00');

ALTER TABLE ONLY public.events ATTACH PARTITION public.events_20261204 FOR VALUES FROM ('2026-12-04 00:00:00+00') TO ('2026-12-05 00:00:00+00');

ALTER TABLE ONLY public.events ATTACH PARTITION public.events_20261205 FOR VALUES FROM ('2026-12-05 00:00:00+00') TO ('2026-12-06 00:00:00+00');

ALTER TABLE ONLY public.events ATTACH PARTITION public.events_20261206 FOR VALUES FROM ('2026-12-06 00:00:00+00') TO ('2026-12-07 00:00:00+00');

ALTER TABLE ONLY public.events ATTACH PARTITION public.events_default DEFAULT;

INSERT INTO public._sqlx_migrations VALUES (1, 'create campaigns', '2026-11-29 12:12:39.344163+00', true, '\x9ffd4788dd124486741382b5b0c193b233bbc2d94ca6509bec9c7254eb858dbc138bba56b7df06dfc9a29c5b998a5192', 24849111);
INSERT INTO public._sqlx_migrations VALUES (2, 'create clicks and events', '2026-11-29 12:12:39.370012+00', true, '\x39ce904b5d6f55d768853e76bbf2aff1ef250291424de7dfab5f4b2abbed3c6e2f425ac4caa1f75ed30167743d606d3f', 25225432);
INSERT INTO public._sqlx_migrations VALUES (3, 'create api tokens', '2026-11-29 12:12:39.395797+00', true, '\x01bacaf8a54411ef393abd4a6d835e5a93d1db5ec298642ad3e33348519605b15b809b9225b3b3a4f86445a635baa2a0', 5678424);
INSERT INTO public._sqlx_migrations VALUES (4, 'create visitor keys and erasures', '2026-11-29 12:12:39.401942+00', true, '\x07de01182f4763f8fb8fd219f4719fa4c13c70799bfefbf4225c7753d1ba0d8f7e9e3bf3d9ef4e0075206bb7877fbcaa', 8199666);
INSERT INTO public._sqlx_migrations VALUES (5, 'create idempotency keys', '2026-11-29 12:12:39.410705+00', true, '\x44637af3f3f1e2f6527dbe79086504f564eefb454019a237f261addc4e641527ffac7cdf676d1eee09a53cb64817e4fd', 6147573);

INSERT INTO public.api_tokens VALUES ('01a22738-bd07-70fc-afab-14aa72ca3bb7', 'first start', 'admin', '\x357ed3cbcd9c1c283c216bbc55c069addbb67bfc05e1a98537c319b566af1abe', '2026-11-29 12:12:39.560012+00', NULL, NULL, '2026-11-29 12:12:44.182087+00');

INSERT INTO public.campaign_stats_hourly VALUES ('01a22738-bcfe-72f2-b8dc-06d2efa426ab', '2026-11-29 12:00:00+00', 1, 0, 1, 0);
INSERT INTO public.campaign_stats_hourly VALUES ('01a22738-cf18-7565-b643-15f45979c748', '2026-11-29 12:00:00+00', 4, 3, 1, 2);

INSERT INTO public.campaigns VALUES ('01a22738-bcfe-72f2-b8dc-06d2efa426ab', 'demo', 'Demo campaign', 'To try octo with; change it or delete it.', 'active', NULL, NULL, 'cpa', NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, 2, '757', '2026-11-29 12:12:39.550521+00', '2026-11-29 12:12:39.550521+00', NULL);
INSERT INTO public.campaigns VALUES ('01a22738-cf18-7565-b643-15f45979c748', 'summer', 'Summer sale', 'a € campaign', 'active', NULL, NULL, 'cpa', 1.500000, 'EUR', 100.000000, 'USD', NULL, NULL, 'https://example.com/over?c={click_id}', true, 4, '761', '2026-11-29 12:12:44.184898+00', '2026-11-29 12:12:44.184898+00', NULL);

INSERT INTO public.clicks_20261129 VALUES ('01a22738-cf36-7566-9cc7-d294755f84d0', '01a22738-cf18-7565-b643-15f45979c748', '127.0.0.1', 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0', 'https://ref.example/x', true, NULL, false, NULL, 'desktop', 'Linux', 'Firefox', 'a1', '€', NULL, NULL, 'x', 'ext1', 'q', NULL, NULL, NULL, 'z', 2, NULL, 'ts', 0.050000, 'EUR', NULL, NULL, '2026-11-29 12:12:44.214+00', '2026-11-29 12:12:44.214+00');
INSERT INTO public.clicks_20261129 VALUES ('01a22738-cf43-75c9-9652-bea2438bd39e', '01a22738-cf18-7565-b643-15f45979c748', '127.0.0.1', 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0', 'https://ref.example/x', true, NULL, false, NULL, 'desktop', 'Linux', 'Firefox', 'a2', '€', NULL, NULL, 'x', 'ext2', 'q', NULL, NULL, NULL, 'z', 2, NULL, 'ts', 0.050000, 'EUR', NULL, NULL, '2026-11-29 12:12:44.227+00', '2026-11-29 12:12:44.227+00');
INSERT INTO public.clicks_20261129 VALUES ('01a22738-cf50-75cc-bdcd-4938f68c47e2', '01a22738-cf18-7565-b643-15f45979c748', '127.0.0.1', 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0', 'https://ref.example/x', true, NULL, false, NULL, 'desktop', 'Linux', 'Firefox', 'a3', '€', NULL, NULL, 'x', 'ext3', 'q', NULL, NULL, NULL, 'z', 2, NULL, 'ts', 0.050000, 'EUR', NULL, NULL, '2026-11-29 12:12:44.24+00', '2026-11-29 12:12:44.24+00');
INSERT INTO public.clicks_20261129 VALUES ('01a22738-cf5d-774b-b11f-66aeca96a666', '01a22738-bcfe-72f2-b8dc-06d2efa426ab', '127.0.0.1', 'curl/7.88.1', NULL, false, 'bot', true, NULL, 'bot', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-29 12:12:44.253+00', '2026-11-29 12:12:44.253+00');
INSERT INTO public.clicks_20261129 VALUES ('01a22738-cf6b-72c6-afe4-89a7126c8feb', '01a22738-cf18-7565-b643-15f45979c748', NULL, NULL, NULL, false, 'bot', true, NULL, 'bot', NULL, NULL, 'last', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 2, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-29 12:12:44.267+00', '2026-11-29 12:12:44.267+00');

INSERT INTO public.event_keys VALUES ('019aaf3c-5f00-7abc-8def-0123456789ab', '2026-11-29 12:12:44.282+00');

INSERT INTO public.events_20261129 VALUES ('019aaf3c-5f00-7abc-8def-0123456789ab', '01a22738-cf6b-72c6-afe4-89a7126c8feb', '01a22738-cf18-7565-b643-15f45979c748', 'purchase', 'Buy', '{"n": {"a": [1, 2]}, "value": 12.5}', 'https://p.example/', 'https://r.example/', 's1', 'u1', '2026-11-29 12:12:44.282+00');
INSERT INTO public.events_20261129 VALUES ('01a22738-cf93-713c-8569-7145143153dc', NULL, '01a22738-cf18-7565-b643-15f45979c748', 'lead', NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-29 12:12:44.307+00');

INSERT INTO public.ingest_watermark VALUES ('01a22738-b79d-723e-979e-467f730de846', 7, '2026-11-29 12:12:44.318538+00');

INSERT INTO public.landing_pages OVERRIDING SYSTEM VALUE VALUES (1, '01a22738-bcfe-72f2-b8dc-06d2efa426ab', 1, 'Demo page', 'https://example.com/?click_id={click_id}&sub1={sub1}', 1, true, '2026-11-29 12:12:39.550521+00');
INSERT INTO public.landing_pages OVERRIDING SYSTEM VALUE VALUES (2, '01a22738-cf18-7565-b643-15f45979c748', 1, 'A', 'https://a.example/?c={click_id}&s={sub1}', 3, true, '2026-11-29 12:12:44.184898+00');
INSERT INTO public.landing_pages OVERRIDING SYSTEM VALUE VALUES (3, '01a22738-cf18-7565-b643-15f45979c748', 2, 'B', 'https://b.example/{cid}?c={click_id}', 1, false, '2026-11-29 12:12:44.184898+00');

INSERT INTO public.offers OVERRIDING SYSTEM VALUE VALUES (1, '01a22738-cf18-7565-b643-15f45979c748', 1, 'O', 'https://o.example/?r={sub2}', 1, true, 2.250000, 'USD', '2026-11-29 12:12:44.184898+00');

SELECT pg_catalog.setval('public.dead_letters_id_seq', 1, false);

SELECT pg_catalog.setval('public.erasures_id_seq', 1, false);

SELECT pg_catalog.setval('public.landing_pages_id_seq', 33, true);

SELECT pg_catalog.setval('public.offers_id_seq', 33, true);

SELECT pg_catalog.setval('public.traffic_sources_id_seq', 1, false);

ALTER TABLE ONLY public._sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.api_tokens
    ADD CONSTRAINT api_tokens_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.api_tokens
    ADD CONSTRAINT api_tokens_token_sha256_key UNIQUE (token_sha256);

ALTER TABLE ONLY public.campaign_stats_hourly
    ADD CONSTRAINT campaign_stats_hourly_pkey PRIMARY KEY (campaign_id, hour);

ALTER TABLE ONLY public.campaigns
    ADD CONSTRAINT campaigns_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.clicks
    ADD CONSTRAINT clicks_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.clicks_20261127
    ADD CONSTRAINT clicks_20261127_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.clicks_20261128
    ADD CONSTRAINT clicks_20261128_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.clicks_20261129
    ADD CONSTRAINT clicks_20261129_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.clicks_20261130
    ADD CONSTRAINT clicks_20261130_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.clicks_20261201
    ADD CONSTRAINT clicks_20261201_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.clicks_20261202
    ADD CONSTRAINT clicks_20261202_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.clicks_20261203
    ADD CONSTRAINT clicks_20261203_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.clicks_20261204
    ADD CONSTRAINT clicks_20261204_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.clicks_20261205
    ADD CONSTRAINT clicks_20261205_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.clicks_20261206
    ADD CONSTRAINT clicks_20261206_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.clicks_default
    ADD CONSTRAINT clicks_default_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.dead_letters
    ADD CONSTRAINT dead_letters_stream_seq_key UNIQUE (stream, seq);

ALTER TABLE ONLY public.erasures
    ADD CONSTRAINT erasures_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.event_keys
    ADD CONSTRAINT event_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.events_20261127
    ADD CONSTRAINT events_20261127_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.events_20261128
    ADD CONSTRAINT events_20261128_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.events_20261129
    ADD CONSTRAINT events_20261129_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.events_20261130
    ADD CONSTRAINT events_20261130_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.events_20261201
    ADD CONSTRAINT events_20261201_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.events_20261202
    ADD CONSTRAINT events_20261202_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.events_20261203
    ADD CONSTRAINT events_20261203_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.events_20261204
    ADD CONSTRAINT events_20261204_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.events_20261205
    ADD CONSTRAINT events_20261205_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.events_20261206
    ADD CONSTRAINT events_20261206_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.events_default
    ADD CONSTRAINT events_default_pkey PRIMARY KEY (created_at, id);

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (token_id, key);

ALTER TABLE ONLY public.ingest_watermark
    ADD CONSTRAINT ingest_watermark_pkey PRIMARY KEY (stream);

ALTER TABLE ONLY public.landing_pages
    ADD CONSTRAINT landing_pages_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.offers
    ADD CONSTRAINT offers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.traffic_sources
    ADD CONSTRAINT traffic_sources_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.visitor_keys
    ADD CONSTRAINT visitor_keys_pkey PRIMARY KEY (day);

CREATE INDEX campaigns_changed_xid ON public.campaigns USING btree (changed_xid);

CREATE UNIQUE INDEX campaigns_key ON public.campaigns USING btree (key) WHERE (deleted_at IS NULL);

CREATE INDEX clicks_created_at_brin ON ONLY public.clicks USING brin (created_at);

CREATE INDEX clicks_20261127_created_at_idx ON public.clicks_20261127 USING brin (created_at);

CREATE INDEX clicks_20261128_created_at_idx ON public.clicks_20261128 USING brin (created_at);

CREATE INDEX clicks_20261129_created_at_idx ON public.clicks_20261129 USING brin (created_at);

CREATE INDEX clicks_20261130_created_at_idx ON public.clicks_20261130 USING brin (created_at);

CREATE INDEX clicks_20261201_created_at_idx ON public.clicks_20261201 USING brin (created_at);

CREATE INDEX clicks_20261202_created_at_idx ON public.clicks_20261202 USING brin (created_at);

CREATE INDEX clicks_20261203_created_at_idx ON public.clicks_20261203 USING brin (created_at);

CREATE INDEX clicks_20261204_created_at_idx ON public.clicks_20261204 USING brin (created_at);

CREATE INDEX clicks_20261205_created_at_idx ON public.clicks_20261205 USING brin (created_at);

CREATE INDEX clicks_20261206_created_at_idx ON public.clicks_20261206 USING brin (created_at);

CREATE INDEX clicks_default_created_at_idx ON public.clicks_default USING brin (created_at);

CREATE INDEX event_keys_created_at_brin ON public.event_keys USING brin (created_at);

CREATE INDEX events_click_id ON ONLY public.events USING btree (click_id) WHERE (click_id IS NOT NULL);

CREATE INDEX events_20261127_click_id_idx ON public.events_20261127 USING btree (click_id) WHERE (click_id IS NOT NULL);

CREATE INDEX events_created_at_brin ON ONLY public.events USING brin (created_at);

CREATE INDEX events_20261127_created_at_idx ON public.events_20261127 USING brin (created_at);

CREATE INDEX events_20261128_click_id_idx ON public.events_20261128 USING btree (click_id) WHERE (click_id IS NOT NULL);

CREATE INDEX events_20261128_created_at_idx ON public.events_20261128 USING brin (created_at);

CREATE INDEX events_20261129_click_id_idx ON public.events_20261129 USING btree (click_id) WHERE (click_id IS NOT NULL);

CREATE INDEX events_20261129_created_at_idx ON public.events_20261129 USING brin (created_at);

CREATE INDEX events_20261130_click_id_idx ON public.events_20261130 USING btree (click_id) WHERE (click_id IS NOT NULL);

CREATE INDEX events_20261130_created_at_idx ON public.events_20261130 USING brin (created_at);

CREATE INDEX events_20261201_click_id_idx ON public.events_20261201 USING btree (click_id) WHERE (click_id IS NOT NULL);

CREATE INDEX events_20261201_created_at_idx ON public.events_20261201 USING brin (created_at);

CREATE INDEX events_20261202_click_id_idx ON public.events_20261202 USING btree (click_id) WHERE (click_id IS NOT NULL);

CREATE INDEX events_20261202_created_at_idx ON public.events_20261202 USING brin (created_at);

CREATE INDEX events_20261203_click_id_idx ON public.events_20261203 USING btree (click_id) WHERE (click_id IS NOT NULL);

CREATE INDEX events_20261203_created_at_idx ON public.events_20261203 USING brin (created_at);

CREATE INDEX events_20261204_click_id_idx ON public.events_20261204 USING btree (click_id) WHERE (click_id IS NOT NULL);

CREATE INDEX events_20261204_created_at_idx ON public.events_20261204 USING brin (created_at);

CREATE INDEX events_20261205_click_id_idx ON public.events_20261205 USING btree (click_id) WHERE (click_id IS NOT NULL);

CREATE INDEX events_20261205_created_at_idx ON public.events_20261205 USING brin (created_at);

CREATE INDEX events_20261206_click_id_idx ON public.events_20261206 USING btree (click_id) WHERE (click_id IS NOT NULL);

CREATE INDEX events_20261206_created_at_idx ON public.events_20261206 USING brin (created_at);

CREATE INDEX events_default_click_id_idx ON public.events_default USING btree (click_id) WHERE (click_id IS NOT NULL);

CREATE INDEX events_default_created_at_idx ON public.events_default USING brin (created_at);

CREATE INDEX idempotency_keys_created_at ON public.idempotency_keys USING btree (created_at);

CREATE INDEX landing_pages_campaign_id ON public.landing_pages USING btree (campaign_id);

CREATE INDEX offers_campaign_id ON public.offers USING btree (campaign_id);

ALTER INDEX public.clicks_created_at_brin ATTACH PARTITION public.clicks_20261127_created_at_idx;

ALTER INDEX public.clicks_pkey ATTACH PARTITION public.clicks_20261127_pkey;

ALTER INDEX public.clicks_created_at_brin ATTACH PARTITION public.clicks_20261128_created_at_idx;

ALTER INDEX public.clicks_pkey ATTACH PARTITION public.clicks_20261128_pkey;

ALTER INDEX public.clicks_created_at_brin ATTACH PARTITION public.clicks_20261129_created_at_idx;

ALTER INDEX public.clicks_pkey ATTACH PARTITION public.clicks_20261129_pkey;

ALTER INDEX public.clicks_created_at_brin ATTACH PARTITION public.clicks_20261130_created_at_idx;

ALTER INDEX public.clicks_pkey ATTACH PARTITION public.clicks_20261130_pkey;

ALTER INDEX public.clicks_created_at_brin ATTACH PARTITION public.clicks_20261201_created_at_idx;

ALTER INDEX public.clicks_pkey ATTACH PARTITION public.clicks_20261201_pkey;

ALTER INDEX public.clicks_created_at_brin ATTACH PARTITION public.clicks_20261202_created_at_idx;

ALTER INDEX public.clicks_pkey ATTACH PARTITION public.clicks_20261202_pkey;

ALTER INDEX public.clicks_created_at_brin ATTACH PARTITION public.clicks_20261203_created_at_idx;

ALTER INDEX public.clicks_pkey ATTACH PARTITION public.clicks_20261203_pkey;

ALTER INDEX public.clicks_created_at_brin ATTACH PARTITION public.clicks_20261204_created_at_idx;

ALTER INDEX public.clicks_pkey ATTACH PARTITION public.clicks_20261204_pkey;

ALTER INDEX public.clicks_created_at_brin ATTACH PARTITION public.clicks_20261205_created_at_idx;

ALTER INDEX public.clicks_pkey ATTACH PARTITION public.clicks_20261205_pkey;

ALTER INDEX public.clicks_created_at_brin ATTACH PARTITION public.clicks_20261206_created_at_idx;

ALTER INDEX public.clicks_pkey ATTACH PARTITION public.clicks_20261206_pkey;

ALTER INDEX public.clicks_created_at_brin ATTACH PARTITION public.clicks_default_created_at_idx;

ALTER INDEX public.clicks_pkey ATTACH PARTITION public.clicks_default_pkey;

ALTER INDEX public.events_click_id ATTACH PARTITION public.events_20261127_click_id_idx;

ALTER INDEX public.events_created_at_brin ATTACH PARTITION public.events_20261127_created_at_idx;

ALTER INDEX public.events_pkey ATTACH PARTITION public.events_20261127_pkey;

ALTER INDEX public.events_click_id ATTACH PARTITION public.events_20261128_click_id_idx;

ALTER INDEX public.events_created_at_brin ATTACH PARTITION public.events_20261128_created_at_idx;

ALTER INDEX public.events_pkey ATTACH PARTITION public.events_20261128_pkey;

ALTER INDEX public.events_click_id ATTACH PARTITION public.events_20261129_click_id_idx;

ALTER INDEX public.events_created_at_brin ATTACH PARTITION public.events_20261129_created_at_idx;

ALTER INDEX public.events_pkey ATTACH PARTITION public.events_20261129_pkey;

ALTER INDEX public.events_click_id ATTACH PARTITION public.events_20261130_click_id_idx;

ALTER INDEX public.events_created_at_brin ATTACH PARTITION public.events_20261130_created_at_idx;

ALTER INDEX public.events_pkey ATTACH PARTITION public.events_20261130_pkey;

ALTER INDEX public.events_click_id ATTACH PARTITION public.events_20261201_click_id_idx;

ALTER INDEX public.events_created_at_brin ATTACH PARTITION public.events_20261201_created_at_idx;

ALTER INDEX public.events_pkey ATTACH PARTITION public.events_20261201_pkey;

ALTER INDEX public.events_click_id ATTACH PARTITION public.events_20261202_click_id_idx;

ALTER INDEX public.events_created_at_brin ATTACH PARTITION public.events_20261202_created_at_idx;

ALTER INDEX public.events_pkey ATTACH PARTITION public.events_20261202_pkey;

ALTER INDEX public.events_click_id ATTACH PARTITION public.events_20261203_click_id_idx;

ALTER INDEX public.events_created_at_brin ATTACH PARTITION public.events_20261203_created_at_idx;

ALTER INDEX public.events_pkey ATTACH PARTITION public.events_20261203_pkey;

ALTER INDEX public.events_click_id ATTACH PARTITION public.events_20261204_click_id_idx;

ALTER INDEX public.events_created_at_brin ATTACH PARTITION public.events_20261204_created_at_idx;

ALTER INDEX public.events_pkey ATTACH PARTITION public.events_20261204_pkey;

ALTER INDEX public.events_click_id ATTACH PARTITION public.events_20261205_click_id_idx;

ALTER INDEX public.events_created_at_brin ATTACH PARTITION public.events_20261205_created_at_idx;

ALTER INDEX public.events_pkey ATTACH PARTITION public.events_20261205_pkey;

ALTER INDEX public.events_click_id ATTACH PARTITION public.events_20261206_click_id_idx;

ALTER INDEX public.events_created_at_brin ATTACH PARTITION public.events_20261206_created_at_idx;

ALTER INDEX public.events_pkey ATTACH PARTITION public.events_20261206_pkey;

ALTER INDEX public.events_click_id ATTACH PARTITION public.events_default_click_id_idx;

ALTER INDEX public.events_created_at_brin ATTACH PARTITION public.events_default_created_at_idx;

ALTER INDEX public.events_pkey ATTACH PARTITION public.events_default_pkey;

CREATE TRIGGER campaign_changes BEFORE UPDATE ON public.campaigns FOR EACH ROW EXECUTE FUNCTION public.octo_campaign_changes();

CREATE TRIGGER campaign_told AFTER INSERT OR DELETE OR UPDATE ON public.campaigns FOR EACH STATEMENT EXECUTE FUNCTION public.octo_campaign_told();

CREATE TRIGGER destination_changes AFTER INSERT OR DELETE OR UPDATE ON public.landing_pages FOR EACH ROW EXECUTE FUNCTION public.octo_destination_changes();

CREATE TRIGGER destination_changes AFTER INSERT OR DELETE OR UPDATE ON public.offers FOR EACH ROW EXECUTE FUNCTION public.octo_destination_changes();

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_token_id_fkey FOREIGN KEY (token_id) REFERENCES public.api_tokens(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.landing_pages
    ADD CONSTRAINT landing_pages_campaign_id_fkey FOREIGN KEY (campaign_id) REFERENCES public.campaigns(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.offers
    ADD CONSTRAINT offers_campaign_id_fkey FOREIGN KEY (campaign_id) REFERENCES public.campaigns(id) ON DELETE CASCADE;

