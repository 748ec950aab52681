# A local stand-in for Snowflake. The connector is pinned below 5: fakesnow does not load with it.
FROM python:3.12-slim-bookworm
RUN pip install --no-cache-dir "fakesnow[server]==0.12.1" "snowflake-connector-python<5" \
    && useradd --create-home --uid 10001 fakesnow
USER fakesnow
EXPOSE 8080
CMD ["fakesnow", "-s", "--host", "0.0.0.0", "-p", "8080"]
