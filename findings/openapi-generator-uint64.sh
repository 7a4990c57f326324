#!/usr/bin/env bash
# openapi-generator 7.25.0: a field of `format: uint64` becomes 32 bits wide in typed clients, without a warning.
#
# One would guess: a generator that does not know an integer's format takes its widest integer, or warns.
# What happens: in the clients for Go, Java, C#, Kotlin and Rust each format other than `int64` becomes a signed integer of
# 32 bits. The log says nothing about the field. The Go client, run here, fails on the first number past 2,147,483,647.
# Who meets it: Rust servers. schemars writes `uint64` for a u64, and a queue's offsets, a log's positions or times in
# milliseconds since 1970 are just such numbers. An API that wants these clients must say `int64`.
#
# Seen:
#   go:     Offset int32 | Crc int32 | Good int64
#   java:   Integer offset | Integer crc | Long good
#   csharp: int Offset | int Crc | long Good
#   kotlin: offset: kotlin.Int | crc: kotlin.Int | good: kotlin.Long
#   rust:   offset: i32 | crc: i32 | good: i64
#   the Go client reads {"offset":1700000000000,"crc":1,"good":1}:
#     json: cannot unmarshal number 1700000000000 into Go struct field _Message.offset of type int32
#
# Needs: Java 11 or newer with Maven, Go 1.23 or newer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

mvn -q -B -Dstyle.color=never org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
    -Dartifact=org.openapitools:openapi-generator-cli:7.25.0 -DoutputDirectory="$folder"

cat >api.yaml <<'END'
openapi: 3.0.3
info: {title: offsets, version: "1"}
paths:
  /message:
    get:
      operationId: get
      responses:
        '200': {description: ok, content: {application/json: {schema: {$ref: '#/components/schemas/Message'}}}}
components:
  schemas:
    Message:
      type: object
      required: [offset, crc, good]
      properties:
        offset: {type: integer, format: uint64, minimum: 0}
        crc: {type: integer, format: uint32, minimum: 0}
        good: {type: integer, format: int64}
END

generate() {
    java -jar openapi-generator-cli-7.25.0.jar generate -i api.yaml -g "$1" -o "$1" \
        --global-property models,supportingFiles >"$1.log" 2>&1
    if grep WARN "$1.log" | grep -iE 'uint|format|offset|crc'; then
        echo "changed: $1: the format is warned about"
        exit 1
    fi
}
failed=0
# Prints the declarations that stand in a generated file, in one line, and compares them.
expect() {
    local generator=$1 pattern=$2 expected=$3 seen
    generate "$generator"
    seen=$(grep -rhoP --include='*essage.*' "$pattern" "$generator" | awk '!had[$0]++' | paste -sd'|' | sed 's/|/ | /g')
    echo "$generator: $seen"
    [ "$seen" = "$expected" ] || { echo "changed: $generator: expected $expected"; failed=1; }
}
expect go '\b(Offset|Crc|Good) u?int[0-9]+' 'Offset int32 | Crc int32 | Good int64'
expect java 'private \K[A-Za-z]+ (offset|crc|good)\b' 'Integer offset | Integer crc | Long good'
expect csharp '\bu?(int|long) (Offset|Crc|Good)\b' 'int Offset | int Crc | long Good'
expect kotlin '\b(offset|crc|good): kotlin\.[A-Za-z]+' 'offset: kotlin.Int | crc: kotlin.Int | good: kotlin.Long'
expect rust '\b(offset|crc|good): [iu][0-9]+' 'offset: i32 | crc: i32 | good: i64'

mkdir reader && mv go/model_message.go go/utils.go reader/
sed -i 's/^package .*/package main/' reader/*.go
cat >reader/main.go <<'END'
package main

import (
	"encoding/json"
	"fmt"
)

func main() {
	var message Message
	fmt.Println(json.Unmarshal([]byte(`{"offset":1700000000000,"crc":1,"good":1}`), &message))
}
END
seen=$(cd reader && go mod init example.org/reader 2>/dev/null && go run .)
echo "the Go client: $seen"
case $seen in
*"cannot unmarshal number 1700000000000"*int32*) ;;
*) echo "changed: the Go client reads an offset past 32 bits"; failed=1 ;;
esac
exit $failed
