"""What schemathesis cannot know of octo by itself."""

import datetime
import re
import string
import uuid

import schemathesis
from hypothesis import strategies as st

# octo's times are from 1970 to 9999: the format alone also allows the year 1.
schemathesis.openapi.format(
    "date-time",
    st.datetimes(min_value=datetime.datetime(1970, 1, 1)).map(lambda time: time.isoformat() + "Z"),
)

# A destination with macros; its grammar is octo's own, so no other tool can make one up.
label = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=12)
macro = st.sampled_from(["{click_id}", "{sub1}", "{country}", "{{", "{random}"])
schemathesis.openapi.format(
    "url-template",
    st.builds(
        "{}://{}.example/{}?{}={}#{}".format, st.sampled_from(["http", "https"]), label, label, label, macro, label
    ),
)


# What the document says a key looks like.
IS_KEY = re.compile(r'(?:[!#-+\--:<-~]{1,255}|"(?:[ !#-\[\]-~]|\\["\\]){1,255}")')


@schemathesis.hook
def before_call(context, case, kwargs):
    """A redirect is the answer; where it leads is none of ours. An Idempotency-Key names one request: the example of
    the document and others that come up again get a name of their own, malformed ones stay as they are."""
    kwargs["allow_redirects"] = False
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and IS_KEY.fullmatch(key):
        # on the wire only: a case whose headers are changed here would count as another one
        kwargs["auth"] = with_own_key


def with_own_key(request):
    request.headers["Idempotency-Key"] = str(uuid.uuid4())
    return request
