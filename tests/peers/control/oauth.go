package main

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// An oauthClient makes auth keys for nodes with its tags.
type oauthClient struct {
	Secret string
	Tags   []string
	tokens []string
	Made   []madeKey
}

// A madeKey is what a client asked for.
type madeKey struct {
	Ephemeral, Preauthorized, Reusable bool
	Tags                               []string
	ExpirySeconds                      int64
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"message": message})
}

// api is the part of Tailscale's API that makes auth keys.
func (t *tailnet) api() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("POST /api/v2/oauth/token", t.oauthToken)
	m.HandleFunc("POST /api/v2/tailnet/-/keys", t.oauthKey)
	return m
}

func (t *tailnet) oauthToken(w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.clients[r.PostFormValue("client_secret")]
	if c == nil {
		refuse(w, http.StatusUnauthorized, "API token invalid")
		return
	}
	id := strings.Split(c.Secret, "-")[2]
	if r.PostFormValue("grant_type") != "client_credentials" || r.PostFormValue("client_id") != id {
		refuse(w, http.StatusBadRequest, "not a client's request for a token")
		return
	}
	token := "tskey-api-" + rand.Text()
	c.tokens = append(c.tokens, token)
	json.NewEncoder(w).Encode(map[string]any{
		"access_token": token, "token_type": "Bearer", "expires_in": 3600, "scope": "auth_keys",
	})
}

func (t *tailnet) oauthKey(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Capabilities struct {
			Devices struct{ Create madeKey }
		}
		ExpirySeconds int64
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var c *oauthClient
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	for _, one := range t.clients {
		if slices.Contains(one.tokens, token) {
			c = one
		}
	}
	if c == nil {
		refuse(w, http.StatusUnauthorized, "API token invalid")
		return
	}
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	made := ask.Capabilities.Devices.Create
	made.ExpirySeconds = ask.ExpirySeconds
	for _, tag := range made.Tags {
		if !slices.Contains(c.Tags, tag) {
			refuse(w, http.StatusBadRequest, "requested tags ["+tag+"] are invalid or not permitted")
			return
		}
	}
	if len(made.Tags) == 0 {
		refuse(w, http.StatusBadRequest, "tags are required")
		return
	}
	c.Made = append(c.Made, made)
	k := &authKey{
		Key: "tskey-auth-" + rand.Text(), Tags: made.Tags,
		Ephemeral: made.Ephemeral, Reusable: made.Reusable, Preauthorized: made.Preauthorized,
	}
	t.keys[k.Key] = k
	json.NewEncoder(w).Encode(map[string]any{
		"id": rand.Text(), "key": k.Key, "created": time.Now().UTC(), "capabilities": ask.Capabilities,
	})
}
