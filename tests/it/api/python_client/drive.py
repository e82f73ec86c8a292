"""Uses the client that openapi-python-client made of octo's document: makes a campaign, follows its link, reads the
click. Arguments: the address of octo and an admin token; what it found goes to standard output as JSON."""

import json
import sys
import time
import uuid

from octo_client.api.campaigns import create_campaign, get_campaign, list_campaigns, update_campaign
from octo_client.api.clicks import get_click, list_clicks
from octo_client.api.events import create_event
from octo_client.api.stats import get_campaign_stats
from octo_client.api.tracking import click
from octo_client.client import AuthenticatedClient, Client
from octo_client.models import CampaignInput, CampaignPatch, EventInput, LandingPageInput, Money, Problem

address, token = sys.argv[1:]
api = AuthenticatedClient(base_url=address, token=token, raise_on_unexpected_status=True)
# a visitor has no token, and where the link leads is of no interest here
visitor = Client(base_url=address, follow_redirects=False, raise_on_unexpected_status=True)

page = LandingPageInput(name="A", url="https://offer.example/?click={click_id}&s={sub1}")
wanted = CampaignInput(name="From Python", key="python", landing_pages=[page], payout=Money("1.50", "USD"))
key = str(uuid.uuid4())
made = create_campaign.sync(client=api, body=wanted, idempotency_key=key)
again = create_campaign.sync_detailed(client=api, body=wanted, idempotency_key=key)
assert again.parsed.id == made.id, again
assert again.headers["idempotency-replayed"] == "true", again.headers

refused = create_campaign.sync(client=api, body=CampaignInput(name=""))
assert isinstance(refused, Problem) and refused.errors[0].pointer == "/name", refused

shown = get_campaign.sync_detailed(client=api, id="python")
etag = shown.headers["etag"]
changed = update_campaign.sync(client=api, id="python", if_match=etag, body=CampaignPatch(description="d"))
assert changed.description == "d", changed
stale = update_campaign.sync_detailed(client=api, id="python", if_match=etag, body=CampaignPatch(description="e"))
assert stale.status_code == 412, stale
assert [c.key for c in list_campaigns.sync(client=api, limit=1).data] == ["python"]

followed = click.sync_detailed(client=visitor, cid="python", sub1="banner 7")
click_id = uuid.UUID(followed.headers["x-click-id"])

for _ in range(200):  # the drain brings it to PostgreSQL, usually within a second
    read = get_click.sync(client=api, click_id=click_id)
    if not isinstance(read, Problem):
        break
    time.sleep(0.1)
assert [c.id for c in list_clicks.sync(client=api, cid="python").data] == [click_id]
stored = create_event.sync(client=api, body=EventInput(event_type="purchase", click_id=click_id))
assert stored.status == "stored", stored
stats = get_campaign_stats.sync(client=api, id="python")

json.dump(
    {
        "status": followed.status_code,
        "location": followed.headers["location"],
        "click_id": str(click_id),
        "campaign_id": str(made.id),
        "read": {"id": str(read.id), "campaign_id": str(read.campaign_id), "sub1": read.sub1},
        "clicks": stats.totals.clicks,
    },
    sys.stdout,
)
