#!/usr/bin/env bash
# A `oneOf` of string constants, which JSON Schema offers for an enum whose values have descriptions, cannot be read by the
# Python client that openapi-generator 7.25.0 makes, and ogen 1.25.0 (Go) makes no client at all.
#
# One would guess: each constant is an alternative of its own, exactly one of them matches, and the client gets an enum.
# What happens: openapi-generator's Python client has two alternatives "string". Both match every value, so that every answer
# with such a field is refused when it is read; the client can be made and imported without a warning about it. (Its Go client
# takes any string.) ogen says that generation failed. openapi-typescript 7.13.0 is right. A plain `enum`, which can give its
# values no descriptions, is right everywhere.
# Who meets it: Rust servers. schemars writes this shape for an enum whose variants have doc comments, so that comments which
# are added to the code break clients.
#
# Seen:
#   python, oneOf: ... Multiple matches found when setting `actual_instance` in Result with oneOf schemas: str. ...
#   ogen, oneOf: generation failed
#   typescript, oneOf: Result: "DONE" | "GONE"
#   python, enum: read
#   ogen, enum: read
#   typescript, enum: Result: "DONE" | "GONE"
#
# Needs: Java 11 or newer with Maven, Go 1.23 or newer, Python 3.9 or newer, Node 20 or newer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

mvn -q -B -Dstyle.color=never org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
    -Dartifact=org.openapitools:openapi-generator-cli:7.25.0 -DoutputDirectory="$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check pydantic==2.14.4 python-dateutil==2.9.0.post0 urllib3==2.8.0 typing-extensions==4.16.0
npm install --silent --no-fund --no-audit openapi-typescript@7.13.0 typescript@5.9.3
GOBIN=$folder/bin go install github.com/ogen-go/ogen/cmd/ogen@v1.25.0

failed=0
# expect NAME SEEN PATTERN: prints what was seen, on one line; it must match.
expect() {
    echo "$1: $2"
    [[ $2 == $3 ]] || { echo "changed: $1: expected $3"; failed=1; }
}
# clients NAME SCHEMA: makes clients of an API whose answer holds a list of SCHEMA.
clients() {
    cat >"$1.yaml" <<END
openapi: 3.1.0
info: {title: results, version: "1"}
paths:
  /ack:
    post:
      operationId: ack
      responses:
        '200': {description: ok, content: {application/json: {schema: {\$ref: '#/components/schemas/Answer'}}}}
components:
  schemas:
    Answer: {type: object, required: [results], properties: {results: {type: array, items: {\$ref: '#/components/schemas/Result'}}}}
    Result: $2
END
    java -jar openapi-generator-cli-7.25.0.jar generate -i "$1.yaml" -g python -o "$1/python" >"$1.log" 2>&1
}
python() {
    (cd "$1/python" && "$folder/venv/bin/python" -c '
from openapi_client.models.answer import Answer
try:
    Answer.from_json("{\"results\":[\"DONE\"]}")
    print("read")
except ValueError as e:
    print(" ".join(str(e).split()))')
}
ogen() { "$folder/bin/ogen" -target "$1/ogen" -package api -clean "$1.yaml" 2>&1 && echo read; }
typescript() { node_modules/.bin/openapi-typescript "$1.yaml" 2>/dev/null | grep -oE 'Result: "[^;]*'; }

clients described '{oneOf: [{type: string, const: DONE, description: Done.}, {type: string, const: GONE, description: Not there.}]}'
expect "python, oneOf" "$(python described)" '*Multiple matches found when setting*Result with oneOf schemas: str*'
expect "ogen, oneOf" "$(ogen described | grep -o 'generation failed' | head -n 1 || true)" 'generation failed'
expect "typescript, oneOf" "$(typescript described)" 'Result: "DONE" | "GONE"'

clients plain '{type: string, enum: [DONE, GONE]}'
expect "python, enum" "$(python plain)" read
expect "ogen, enum" "$(ogen plain | tail -n 1)" read
expect "typescript, enum" "$(typescript plain)" 'Result: "DONE" | "GONE"'
exit $failed
