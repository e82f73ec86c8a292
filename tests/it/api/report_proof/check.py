"""Reads facts and answers of octo, works every answer out again from the facts, and says where they differ.

The rules stand here in words of their own, the sums are DuckDB's, time zones are Python's: nothing is octo's or PostgreSQL's.
"""

import functools
import json
import sys
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal, getcontext
from zoneinfo import ZoneInfo

import duckdb

getcontext().prec = 60
SIX = Decimal("0.000001")
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe"]
TIMES = ["hour", "hour_of_day", "day", "weekday", "week", "month"]
OF_CLICK = ["campaign", "source", "rule", "path", "landing_page", "country", "region", "city", "language", "device", "os",
            "os_version", "browser", "browser_version", "isp", "connection", "referrer_host", "sub1", "sub2", "sub3", "sub4",
            "sub5", "aff_sub", "aff_sub2", "aff_sub3", "aff_sub4", "aff_sub5", "keyword", "creative", "placement", "reason"]
COLUMNS = {"campaign": "campaign_id", "source": "source_id", "rule": "rule_id", "path": "path_id",
           "landing_page": "landing_page_id", "reason": "invalid_reason", "aff_sub": "affiliate_sub"}
COLUMNS |= {f"aff_sub{n}": f"affiliate_sub{n}" for n in range(2, 6)}
DIMENSIONS = OF_CLICK + ["offer", "goal", "status", "currency"]
COUNTS = ["clicks", "valid_clicks", "bot_clicks", "unique_clicks", "lander_views", "lander_clicks", "offer_clicks"]
STATES = ["pending", "approved", "rejected", "refunded", "unmapped"]
CLICK_MEASURES = {"clicks", "valid_clicks", "bot_clicks", "unique_clicks", "lander_views", "lander_clicks", "lp_ctr",
                  "offer_clicks", "cost", "cpc"}


def read(name):
    with open(name) as file:
        return [json.loads(line, parse_float=Decimal) for line in file]


def moment(text):
    return datetime.fromisoformat(text).astimezone(timezone.utc)


def host(referrer):
    if not referrer or "://" not in referrer:
        return None
    rest = referrer.split("://", 1)[1]
    for end in "/?#":
        rest = rest.split(end, 1)[0]
    return rest.rsplit("@", 1)[-1].split(":", 1)[0].lower() or None


def times(at, zone):
    local = at.astimezone(zone)
    hour = at - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    monday = local.date() - timedelta(days=local.weekday())
    return [hour.strftime("%Y-%m-%dT%H:%M:%SZ"), str(local.hour), str(local.date()), str(local.isoweekday()), str(monday),
            local.strftime("%Y-%m")]


def text(value):
    return None if value is None else str(value)


class Facts:
    """Each fact as a row: what it is told apart by, and what it counts."""

    def __init__(self):
        self.rows = []
        self.zones = [ZoneInfo(name) for name in ZONES]

    def add(self, kind, at, row, offer, currency, day, counts=(), cost=0, goal=None, status=None, number=0, amount=0):
        referrer = row["referrer_host"] if "referrer_host" in row else host(row.get("referrer"))
        values = [referrer if d == "referrer_host" else text(row.get(COLUMNS.get(d, d))) for d in OF_CLICK]
        counted = [int(name in counts) for name in COUNTS]
        zoned = [value for zone in self.zones for value in times(at, zone)]
        self.rows.append([kind, at.isoformat(), *values, text(offer), goal, status, currency, str(day), *counted,
                          str(cost), number, str(amount), *zoned])


def facts_of(clicks, keys, legs, conversions, changes):
    facts = Facts()
    by_id = {click["id"]: click for click in clicks}
    for click in clicks:
        at, has_page, offer = moment(click["created_at"]), click["landing_page_id"] is not None, click["campaign_offer_id"]
        counts = {"clicks"}
        counts |= {"valid_clicks"} if click["is_valid"] else set()
        counts |= {"bot_clicks"} if click["is_bot"] else set()
        counts |= {"unique_clicks"} if click["is_unique"] else set()
        counts |= {"lander_views"} if click["is_valid"] and has_page else set()
        counts |= {"offer_clicks"} if click["is_valid"] and not has_page and offer is not None else set()
        currency = None if click["cost"] is None else click["currency"] or "XXX"
        facts.add(0, at, click, offer, currency, at.date(), counts, click["cost"] or 0)
    for which, rows in (("lander_clicks", keys), ("offer_clicks", legs)):
        for row in rows:
            click = by_id.get(row["click_id"])
            if row["is_counted"] and click and click["is_valid"]:
                if which == "lander_clicks" and click["landing_page_id"] is None:
                    continue
                at, offer = moment(click["created_at"]), row.get("offer_id", click["campaign_offer_id"])
                currency = None if click["cost"] is None else click["currency"] or "XXX"
                facts.add(0, at, click, offer, currency, at.date(), {which})
    of = {row["id"]: row for row in conversions}
    for row in conversions:
        taken_back = row["status"] in ("rejected", "refunded")
        amount = row["original_payout"] or 0 if taken_back else row["payout"] if row["status"] in ("pending", "approved") else 0
        day, number = moment(row["converted_at"]).date(), int(row["kind"] == "conversion")
        for kind, at in ((1, row["created_at"]), (2, row["converted_at"])):
            facts.add(kind, moment(at), row, row["offer_id"], row["currency"], day, (), 0, row["goal"], row["status"], number,
                      amount)
    for change in changes:
        row, at = of[change["conversion_id"]], moment(change["changed_at"])
        payout, revenue = Decimal(change["payout"]), Decimal(change["revenue"])
        before, after = change["from_status"], change["to_status"]
        moved = {}
        for status, number, amount in ((before, -1, 0), (after, 1, 0), ("approved", 0, revenue), ("pending", 0, payout - revenue)):
            if status is not None:
                moved.setdefault(status, [0, Decimal(0)])
                moved[status][0] += number
                moved[status][1] += amount
        taken_by = after if after in ("rejected", "refunded") else before if before in ("rejected", "refunded") else None
        if taken_by:
            moved[taken_by][1] -= payout
        for status, (number, amount) in moved.items():
            number *= int(row["kind"] == "conversion")
            facts.add(3, at, row, row["offer_id"], change["currency"], at.date(), (), 0, row["goal"], status, number, amount)
    return facts.rows


def load(rows):
    names = ["kind INT", "happened TIMESTAMPTZ"] + [f"{d} VARCHAR" for d in DIMENSIONS] + ["rate_day DATE"]
    names += [f"n_{name} BIGINT" for name in COUNTS] + ["cost DECIMAL(30,6)", "number BIGINT", "amount DECIMAL(30,6)"]
    names += [f"z{i}_{name} VARCHAR" for i in range(len(ZONES)) for name in TIMES]
    with open("facts.csv", "w") as file:
        for row in rows:
            file.write("\x1f".join("\x1e" if value is None else str(value) for value in row) + "\n")
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET threads = 1")
    connection.execute(f"CREATE TABLE facts ({', '.join(names)})")
    connection.execute("COPY facts FROM 'facts.csv' (DELIMITER '\x1f', NULLSTR '\x1e', HEADER false, QUOTE '')")
    return connection


class Rates:
    """Units for one euro: the last that the bank published before the day, at most ten days old, else the owner's."""

    def __init__(self, rows):
        self.rows = rows

    def per_euro(self, currency, day):
        if currency == "EUR":
            return Decimal(1)
        bank = [r for r in self.rows if r["currency"] == currency and r["source"] == "ecb"
                and day - timedelta(days=10) <= r["day"] < day]
        own = [r for r in self.rows if r["currency"] == currency and r["source"] == "manual" and r["day"] <= day]
        newest = max(bank or own, key=lambda r: r["day"], default=None)
        return newest and Decimal(newest["rate"])

    @functools.cache
    def rate(self, currency, to, day):
        if currency == to and currency != "XXX":
            return Decimal(1)
        ours, theirs = self.per_euro(currency, day), self.per_euro(to, day)
        if currency == "XXX" or ours is None or theirs is None:
            return None
        return (theirs / ours).quantize(Decimal(10) ** -18, ROUND_HALF_UP)


def column(dimension, zone):
    return f"z{ZONES.index(zone)}_{dimension}" if dimension in TIMES else dimension


def condition(filter, zone):
    dimension = filter["dimension"]
    value = f"coalesce({column(dimension, zone)}, 'unknown')"
    match, values = next((m, filter[m]) for m in ("is", "is_not", "contains", "starts") if m in filter)
    quoted = ["'" + v.replace("'", "''") + "'" for v in values]
    one = {
        "is": f"{value} IN ({', '.join(quoted)})",
        "is_not": f"{value} NOT IN ({', '.join(quoted)})",
        "contains": " OR ".join(f"contains(lower({value}), lower({q}))" for q in quoted),
        "starts": " OR ".join(f"starts_with(lower({value}), lower({q}))" for q in quoted),
    }[match]
    return f"(kind = 0 OR {one})" if dimension in ("goal", "status") else f"({one})"


def sums_of(connection, rates, question, groups):
    kind = {"click": 1, "conversion": 2, "change": 3}[question["time"]]
    measures = question["measures"]
    wants_conversions = not CLICK_MEASURES >= set(measures) or {"goal", "status", "currency"} & set(question["group_by"])
    kinds = f"(0, {kind})" if wants_conversions else "(0)"
    keys = [column(dimension, question["tz"]) for dimension in groups]
    conditions = [f"kind IN {kinds}", f"happened >= '{question['from']}'", f"happened < '{question['to']}'"]
    conditions += [condition(filter, question["tz"]) for filter in question["filters"]]
    selected = keys + ["currency", "rate_day", "status"]
    found = connection.execute(
        f"SELECT {', '.join(selected)}, {', '.join(f'sum(n_{name})' for name in COUNTS)}, sum(cost), sum(number), sum(amount) "
        f"FROM facts WHERE {' AND '.join(conditions)} GROUP BY ALL").fetchall()
    rows = {}
    for row in found:
        key, (currency, day, status), rest = row[:len(keys)], row[len(keys):len(selected)], row[len(selected):]
        sums = rows.setdefault(tuple(key), {})
        counts, cost, number, amount = rest[:len(COUNTS)], rest[-3], rest[-2], rest[-1]
        rate = rates.rate(currency, question["currency"], day) if currency else Decimal(0)
        assert rate is not None, f"no rate of {currency} on {day}"
        for name, count in zip(COUNTS, counts):
            sums[name] = sums.get(name, 0) + count
        sums["cost"] = sums.get("cost", 0) + cost * rate
        if status in STATES:
            sums[status] = sums.get(status, 0) + number
            money = "revenue" if status == "approved" else f"revenue_{status}"
            sums[money] = sums.get(money, 0) + amount * rate
    return {key: sums for key, sums in rows.items() if any(sums.values())}


def ratio(of, by):
    return None if by == 0 else (Decimal(of) / Decimal(by)).quantize(SIX, ROUND_HALF_UP)


def measure(sums, name, validity):
    get = lambda of: Decimal(sums.get(of, 0))
    clicks = get("valid_clicks" if validity == "valid" else "clicks")
    conversions, profit = get("pending") + get("approved"), get("revenue") - get("cost")
    known = sum(get(state) for state in STATES)
    ratios = {
        "lp_ctr": (get("lander_clicks"), get("lander_views")), "cr": (conversions, clicks),
        "offer_cr": (conversions, get("offer_clicks")), "approve_rate": (get("approved"), get("approved") + get("rejected")),
        "approve_rate_of_all": (get("approved"), known), "roi": (profit, get("cost")), "epc": (get("revenue"), clicks),
        "epc_offer": (get("revenue"), get("offer_clicks")), "cpc": (get("cost"), clicks), "cpa": (get("cost"), get("approved")),
        "ecpm": (1000 * get("revenue"), clicks),
    }
    if name in ratios:
        return ratio(*ratios[name])
    derived = {"conversions": conversions, "profit": profit, "profit_expected": profit + get("revenue_pending")}
    return derived.get(name, get(name)).quantize(SIX, ROUND_HALF_UP)


def figures(sums, question):
    return {name: measure(sums, name, question["validity"]) for name in question["measures"]}


def shown(answer):
    return {name: None if value is None else Decimal(str(value)).quantize(SIX) for name, value in answer.items()}


def main():
    facts = facts_of(*(read(f"{name}.ndjson") for name in ("clicks", "keys", "legs", "conversions", "changes")))
    rates = read("rates.ndjson")
    for rate in rates:
        rate["day"] = datetime.fromisoformat(rate["day"]).date()
    rates, connection = Rates(rates), load(facts)
    questions, compared, wrong = read("questions.ndjson"), 0, 0
    sources = {}
    for entry in questions:
        question, answer = entry["question"], entry["answer"]
        sources[answer["source"]] = sources.get(answer["source"], 0) + 1
        groups = question["group_by"]
        sums = sums_of(connection, rates, question, groups)
        wanted = {key: figures(of_row, question) for key, of_row in sums.items()}
        got = {tuple(row["keys"][group] for group in groups): shown(row["figures"]) for row in answer["rows"]}
        # whether a row stands there of which nothing that was asked for is left, hangs on what was not asked for
        wanted, got = ({key: row for key, row in rows.items() if any(row.values())} for rows in (wanted, got))
        total = {}
        for of_row in sums.values():
            for name, value in of_row.items():
                total[name] = total.get(name, 0) + value
        compared += len(wanted)
        if wanted != got or figures(total, question) != shown(answer["totals"]) or answer["has_more"]:
            wrong += 1
            if wrong <= 5:
                print("DIFFERS", json.dumps(question), answer["source"])
                for key in sorted(set(wanted) | set(got), key=str)[:1000]:
                    if wanted.get(key) != got.get(key):
                        print("  ", key, "wanted", wanted.get(key), "got", got.get(key))
                print("   totals wanted", figures(total, question), "got", shown(answer["totals"]))
    print(f"{len(questions)} reports, {compared} rows, {len(facts)} facts, by source {sources}, {wrong} differ")
    sys.exit(1 if wrong else 0)


main()
