package main

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
)

const keySize = 32

// parseKey reads a 32-byte key: base64 as wg(8) writes it, or hex, bare or
// behind "privkey:" or "nodekey:".  The error never shows the key.
func parseKey(text string) ([]byte, error) {
	text = strings.TrimSpace(text)
	if key, err := base64.StdEncoding.DecodeString(text); err == nil &&
		len(key) == keySize {
		return key, nil
	}
	for _, prefix := range []string{"privkey:", "nodekey:"} {
		text = strings.TrimPrefix(text, prefix)
	}
	key, err := hex.DecodeString(text)
	if err != nil || len(key) != keySize {
		return nil, fmt.Errorf("not a key of %d bytes in base64 or hex",
			keySize)
	}
	return key, nil
}

func readKeyFile(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// genkey prints a new private key in base64.
func genkey(w io.Writer) error {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, base64.StdEncoding.EncodeToString(key.Bytes()))
	return err
}

// pubkey reads a private key from r and prints its public key in base64.
func pubkey(r io.Reader, w io.Writer) error {
	text, err := io.ReadAll(io.LimitReader(r, 256))
	if err != nil {
		return err
	}
	raw, err := parseKey(string(text))
	if err != nil {
		return err
	}
	key, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, base64.StdEncoding.EncodeToString(
		key.PublicKey().Bytes()))
	return err
}
