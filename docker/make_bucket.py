"""Makes the bucket of EXPORTAPP_STORAGE_URL in a store that comes empty."""

import os
from urllib.parse import urlsplit

import boto3

bucket = urlsplit(os.environ["EXPORTAPP_STORAGE_URL"]).netloc
store = boto3.client("s3", endpoint_url=os.environ["EXPORTAPP_S3_ENDPOINT"])
if bucket not in {one["Name"] for one in store.list_buckets()["Buckets"]}:
    store.create_bucket(Bucket=bucket)
    print(f"made the bucket {bucket}")
