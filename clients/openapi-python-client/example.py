# SPDX-License-Identifier: Apache-2.0
"""Rent an instance with the client that openapi-python-client generates.

NOVITAI_URL and NOVITAI_API_KEY say which server to call, and with which key.
"""

from __future__ import annotations

import os
from uuid import uuid4

from httpx import Timeout
from novitai_generated import AuthenticatedClient
from novitai_generated.api.instances import create_instance, delete_instance, wait_for_instance
from novitai_generated.models.accepted_instance import AcceptedInstance
from novitai_generated.models.accepted_operation import AcceptedOperation
from novitai_generated.models.instance import Instance
from novitai_generated.models.new_instance import NewInstance


def main() -> None:
    """Create an instance, wait until it serves, and delete it."""
    body = NewInstance(
        name="openapi-python-client",
        product_name="gpu-basic",
        template_id="tmpl-12345",
    )
    print(f"sent {', '.join(sorted(body.to_dict()))}")
    url, key = os.environ["NOVITAI_URL"], os.environ["NOVITAI_API_KEY"]
    with AuthenticatedClient(base_url=url, token=key, timeout=Timeout(90)) as client:
        created = create_instance.sync(client=client, body=body, idempotency_key=str(uuid4()))
        if not isinstance(created, AcceptedInstance):
            raise SystemExit(f"it was not created: {created}")
        print(f"created {created.instance_id}")
        waited = wait_for_instance.sync(created.instance_id, client=client, timeout=60)
        if not isinstance(waited, Instance):
            raise SystemExit(f"it does not serve: {waited}")
        print(f"{waited.status} in {waited.region}")
        deleted = delete_instance.sync(created.instance_id, client=client)
        if not isinstance(deleted, AcceptedOperation):
            raise SystemExit(f"it was not deleted: {deleted}")
        print(f"deleted: {deleted.status}")


if __name__ == "__main__":
    main()
