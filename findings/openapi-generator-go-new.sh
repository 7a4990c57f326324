#!/usr/bin/env bash
# openapi-generator 7.25.0, Go: an API with the schemas `Message` and `NewMessage` gives a client that does not compile.
#
# One would guess: two schemas with different names become two types that live side by side.
# What happens: the constructor of type `Message` is named `NewMessage`, as is the other schema's type. The generator ends
# with success and no warning; the Go compiler then refuses the package.
# Who meets it: `Message` for what is stored and `NewMessage` for what is sent is a common pair of names in an API (the same
# goes for `Topic` and `NewTopic`, ...).
#
# Seen:
#   generator: 0 warnings
#   ./model_new_message.go:20:25: NewMessage (function) is not a type
#   ./model_new_message.go:23:6: NewMessage redeclared in this block
#   the same with MessageDraft in place of NewMessage: compiles
#
# Needs: Java 11 or newer with Maven, Go 1.23 or newer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

mvn -q -B -Dstyle.color=never org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
    -Dartifact=org.openapitools:openapi-generator-cli:7.25.0 -DoutputDirectory="$folder"

# client NAME: makes a Go client of an API whose request is the schema NAME and whose answer is the schema Message.
client() {
    cat >"$1.yaml" <<END
openapi: 3.0.3
info: {title: messages, version: "1"}
paths:
  /messages:
    post:
      operationId: send
      requestBody: {content: {application/json: {schema: {\$ref: '#/components/schemas/$1'}}}}
      responses:
        '200': {description: ok, content: {application/json: {schema: {\$ref: '#/components/schemas/Message'}}}}
components:
  schemas:
    $1: {type: object, required: [body], properties: {body: {type: string}}}
    Message: {type: object, required: [id, body], properties: {id: {type: string}, body: {type: string}}}
END
    java -jar openapi-generator-cli-7.25.0.jar generate -i "$1.yaml" -g go -o "$1" >"$1.log" 2>&1
    echo "generator, $1: $(grep -c WARN "$1.log" || true) warnings"
    rm -rf "$1/test" "$1"/go.*
    (cd "$1" && go mod init example.org/client >/dev/null 2>&1 && go build . >../"$1.build" 2>&1)
}

if ! client MessageDraft; then
    cat MessageDraft.build
    echo "changed: the client does not compile with MessageDraft either"
    exit 1
fi
echo "MessageDraft: compiles"
if client NewMessage; then
    echo "changed: the client compiles with NewMessage"
    exit 1
fi
cat NewMessage.build
grep -q 'NewMessage redeclared in this block' NewMessage.build || { echo "changed: another error"; exit 1; }
