# What must be there before the first page. Each step leaves alone what is there already.
set -eu
python docker/make_bucket.py
python manage.py sample_data
# Last, because it holds datasets.toml against the shop's tables.
python manage.py migrate
