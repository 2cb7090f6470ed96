PY = .venv/bin/python
export PORT

.PHONY: run test slow lint format bench faults screenshots

run: ## Sets up what is missing, starts everything on this machine, makes a first export
	@scripts/setup
	@exec $(PY) manage.py quickstart

test: ## Installs what the tests need, then linters, types and all tests
	@scripts/setup --dev
	@scripts/install-test-services
	@$(MAKE) --no-print-directory lint
	@$(PY) -m pytest -n 4 --dist loadscope --no-loadscope-reorder  # more than there are cores: the long tests mostly wait

slow: ## The tests that `make test` leaves out: those that wait for half a minute or more
	@scripts/setup --dev
	@scripts/install-test-services
	@$(PY) -m pytest -m slow

lint: ## The quick half of `make test`
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	.venv/bin/djlint templates --check --lint
	$(PY) manage.py makemigrations --check --dry-run

format: ## Formats the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	.venv/bin/djlint templates --reformat --quiet

bench: ## Measures the engine beside other tools (SCALE=1 is 6 million rows), writes bench/RESULTS.md
	@bench/setup
	@$(PY) -m bench --scale $(or $(SCALE),1) --rounds $(or $(ROUNDS),3)

faults: ## Breaks a whole desk at random (SEED=1, MINUTES=10, STORE=local, moto or seaweedfs), writes docs/faults.md
	@scripts/setup --dev
	@scripts/install-test-services
	@$(PY) -m tests.faults.campaign --seed $(or $(SEED),1) --minutes $(or $(MINUTES),10) --store $(or $(STORE),local)

screenshots: ## Makes a picture of every page, wide and as a phone shows it, in docs/screenshots (FOLDER=...)
	@scripts/setup --dev
	@scripts/install-test-services
	@$(PY) -m tests.journeys.gallery $(or $(FOLDER),docs/screenshots)
