# What one line of shell can do: each operation, text and JSON, files, pipes, one field of a response, a table.
# Run: AEROSTACK_API_KEY=... sh examples/one_liners.sh  (AEROSTACK_SERVER_URL names another server than production)
set -eu
export PYTHONPATH="$(dirname "$0")/.."
aerostack() { python3 -m aerostack_lite "$@"; }

# From Python, without a program
python3 -c 'from aerostack_lite import SDK; print(SDK().database.db_query(sql="SELECT 1 AS one").results)'

# name=text and name:=JSON
aerostack cache_set key=greeting value:='{"hello": "world"}' ttl=60
aerostack cache_get key=greeting --field value

# Rows, as JSON and as a table
aerostack db_query sql='SELECT ? AS name, ? AS born' params:='["Ada", 1815]'
aerostack db_query sql='SELECT ? AS name, ? AS born' params:='["Ada", 1815]' --table

# =@FILE and =@- take text from a file or from standard input, :=@FILE and :=@- take JSON
echo 'SELECT 6 * 7 AS answer' | aerostack db_query sql=@-
echo '{"to": "ada@example.com"}' | aerostack queue_enqueue type=email data:=@- delay=10 --field job_id
date | aerostack storage_upload key=now.txt file=@- --field url

# A password stays out of the command line, where other users would see it; on a terminal it is asked for
echo 'correct horse battery' | aerostack auth_signup email="ada-$$@example.com" password=@- name=Ada --field user
echo 'correct horse battery' | aerostack auth_signin email="ada-$$@example.com" password=@- --field token >/dev/null

# Services, chat
aerostack services_invoke service_name=echo data:='{"width": 80}' --field result
aerostack ai_chat messages:='[{"role": "user", "content": "Hello"}]' --field response
