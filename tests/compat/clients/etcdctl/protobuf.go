package main

// A protobuf message without its schema, as text: `1{1:5 3:7} 2{1:"k"}`.

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// protobuf shows bytes that are a message and no plain text.
func protobuf(content []byte) (string, bool) {
	if utf8.Valid(content) && !strings.ContainsFunc(string(content), isBinary) {
		return "", false
	}
	return message(content)
}

func isBinary(c rune) bool { return c != '\n' && c != '\t' && c != '\r' && unicode.IsControl(c) }

func message(content []byte) (string, bool) {
	var fields []string
	for len(content) > 0 {
		tag, n := binary.Uvarint(content)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 100 {
			return "", false
		}
		content = content[n:]
		value, n := binary.Uvarint(content)
		if n <= 0 {
			return "", false
		}
		content = content[n:]
		switch tag & 7 {
		case 0:
			fields = append(fields, fmt.Sprintf("%d:%d", tag>>3, value))
		case 2:
			if value > uint64(len(content)) {
				return "", false
			}
			inner := content[:value]
			content = content[value:]
			// Keys and values of the scripts are letters, which could be read as a message too.
			shown, isMessage := "", false
			if len(inner) > 0 && (!utf8.Valid(inner) || strings.ContainsFunc(string(inner), isBinary)) {
				shown, isMessage = message(inner)
			}
			if isMessage {
				fields = append(fields, fmt.Sprintf("%d{%s}", tag>>3, shown))
			} else {
				fields = append(fields, fmt.Sprintf("%d:%q", tag>>3, inner))
			}
		default:
			return "", false
		}
	}
	return strings.Join(fields, " "), true
}
