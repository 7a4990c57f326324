#!/usr/bin/env bash
# openapi-generator 7.25.0, Python: `default: null` in a schema that no operation uses makes the whole package unimportable.
#
# One would guess: a schema that nothing refers to does no harm; at worst a file of it is left out.
# What happens: in a schema that an operation refers to, the field becomes `= None`. In one that is only listed under
# `components`, it becomes `= null`, which is no Python: importing the package, and with it every operation, ends in a
# NameError. The generator's log has no error and no warning about it.
# Who meets it: servers that write their document from types. schemars gives an optional field with serde's default
# `"default": null`, and a library that collects types lists some that no operation uses.
#
# Seen:
#   used: a: Optional[StrictInt] = None          import openapi_client: imported
#   unused: a: Optional[StrictInt] = null        import openapi_client: NameError: name 'null' is not defined
#
# Needs: Java 11 or newer with Maven, Python 3.9 or newer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

mvn -q -B -Dstyle.color=never org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
    -Dartifact=org.openapitools:openapi-generator-cli:7.25.0 -DoutputDirectory="$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check openapi-spec-validator==0.7.2 pydantic==2.14.4 python-dateutil==2.9.0.post0 \
    urllib3==2.8.0 typing-extensions==4.16.0

failed=0
# try NAME ANSWER EXPECTED: makes a client of an API whose answer is the schema ANSWER, and imports it.
try() {
    cat >"$1.yaml" <<END
openapi: 3.1.0
info: {title: parts, version: "1"}
paths:
  /x:
    get:
      operationId: get
      responses:
        '200': {description: ok, content: {application/json: {schema: {\$ref: '#/components/schemas/$2'}}}}
components:
  schemas:
    Whole: {type: object, properties: {name: {type: string}}}
    Part: {type: object, properties: {a: {type: [integer, "null"], default: null}}}
END
    venv/bin/openapi-spec-validator "$1.yaml" >/dev/null
    java -jar openapi-generator-cli-7.25.0.jar generate -i "$1.yaml" -g python -o "$1" >"$1.log" 2>&1
    local seen
    seen=$(cd "$1" && "$folder/venv/bin/python" -c 'import openapi_client; print("imported")' 2>&1 | tail -n 1 || true)
    echo "$1: $(grep -oE '\ba: Optional.*' "$1/openapi_client/models/part.py"); import openapi_client: $seen"
    [ "$seen" = "$3" ] || { echo "changed: $1: expected $3"; failed=1; }
}
try used Part imported
try unused Whole "NameError: name 'null' is not defined"
exit $failed
