# Everything but the nginx module needs only this file; the module is built by
# nginx's own configure script, from ./config.
#
#   make                tailnetd, tailnetctl, the module and the test programs
#   make check          layers, unit tests, then t/ with prove
#   make SAN=1 ...      the same with ASan and UBSan, in build-san/; nginx too
#   make CC=clang ...   the same with clang, in build-clang/
#   make SUITE=trixie   the same with the nginx of another Debian suite, built
#                       from its source, in build-trixie/

CC     ?= gcc
ifeq ($(origin CC),default)
CC     := gcc
endif
SAN    ?=
NGINX  ?= /usr/sbin/nginx
NGINX_SRC ?= /usr/share/nginx/src

SUITE  ?= $(if $(SAN),bookworm)

B      ?= build$(if $(SAN),,$(if $(SUITE),-$(SUITE)))$(if $(findstring clang,$(CC)),-clang)$(if $(SAN),-san)
P      := ngx_tailnet_module

WARN   := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes \
          -Wmissing-prototypes -Wvla -Wwrite-strings -Wpointer-arith -Wundef
SANFLAGS := $(if $(SAN),-fsanitize=address -fsanitize=undefined -fno-sanitize-recover=all \
          -fno-omit-frame-pointer -DTN_SANITIZE)
HARDEN := $(if $(SAN),,-D_FORTIFY_SOURCE=2) -fstack-protector-strong -fPIE
CFLAGS ?= -O2 -g
ALL_CFLAGS := -std=c11 -D_GNU_SOURCE $(CFLAGS) $(WARN) $(HARDEN) $(SANFLAGS)
LDFLAGS_ALL := -pie -Wl,-z,relro,-z,now $(SANFLAGS) $(LDFLAGS)

CORE     := $(wildcard $(P)/core/*.c)
TAILNETD := $(wildcard $(P)/tailnetd/*.c $(P)/tailnetd/*/*.c)
CLI      := $(wildcard $(P)/cli/*.c)
LIBS     := -luv -ljansson -lnghttp2 -lzstd -lsodium -lssl -lcrypto -lseccomp

# Optional: faster on CPUs with AVX-512 (amd64 only).
ifneq ($(wildcard /usr/include/intel-ipsec-mb.h),)
ALL_CFLAGS += -DTN_IPSECMB
IPSECMB := -lIPSec_MB
LIBS += $(IPSECMB)
endif

obj = $(patsubst %.c,$(B)/%.o,$(1))

# V=1 shows the commands.
$(if $(V),,.SILENT:)

.PHONY: list-unit unit-programs all tailnetd tailnetctl module tests bench layers unit check clean install
all: tailnetd tailnetctl module tests
tailnetd: $(B)/tailnetd
tailnetctl: $(B)/tailnetctl
module: $(B)/ngx_tailnet_module.so

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/tailnetd: $(call obj,$(CORE) $(TAILNETD))
	$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

# tailnetctl needs of tailnetd only what makes and reads keys.
CTL_SHARED := $(P)/tailnetd/base64.c $(P)/tailnetd/crypto/noise.c \
              $(P)/tailnetd/engine/keytext.c
$(B)/tailnetctl: $(call obj,$(CORE) $(CLI) $(CTL_SHARED))
	$(CC) $(LDFLAGS_ALL) -o $@ $^ -ljansson -lsodium -lcrypto

# ---- the module ----
MODULE_SRC := $(CORE) $(wildcard $(P)/core/*.h $(P)/nginx/* $(P)/http/*) config
NGINX_TREE := $(B)/nginx
NGINX_MAKE := $(MAKE) $(if $(V),,-s) -C $(NGINX_TREE) -f objs/Makefile
$(B)/ngx_tailnet_module.so: $(NGINX_TREE)/objs/Makefile $(MODULE_SRC)
	+$(NGINX_MAKE) $(if $(SUITE),binary) objs/ngx_tailnet_module.so
	cp $(NGINX_TREE)/objs/ngx_tailnet_module.so $@
	$(if $(SUITE),cp $(NGINX_TREE)/objs/nginx $(B)/nginx-bin)

$(NGINX_TREE)/objs/Makefile: config tests/lib/configure-module \
    tests/lib/configure-nginx $(wildcard $(P)/nginx/*.c $(P)/http/*.c)
ifneq ($(SUITE),)
	CC="$(CC)" SAN="$(SAN)" tests/lib/configure-nginx $(SUITE) $(NGINX_TREE)
else
	CC="$(CC)" tests/lib/configure-module $(NGINX) $(NGINX_SRC) $(NGINX_TREE)
endif

# ---- tests ----
# A unit test names the sources and libraries it links at its top:
#   /* links: core/tn_addr.c */   /* libs: -lsodium */
UNIT := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test_*.c))
links = $(shell sed -n 's,^/\* links: \(.*\) \*/,\1,p' tests/unit/$(1).c)
libs  = $(shell sed -n 's,^/\* libs: \(.*\) \*/,\1,p' tests/unit/$(1).c)
define unit_rule
$(B)/tests/$(1): $(B)/tests/unit/$(1).o $$(call obj,$$(addprefix $(P)/,$(call links,$(1))))
	@mkdir -p $$(@D)
	$(CC) $(LDFLAGS_ALL) -o $$@ $$^ -lcmocka $(call libs,$(1)) $(if $(findstring crypto/aead,$(call links,$(1))),$(IPSECMB))
endef
$(foreach t,$(UNIT),$(eval $(call unit_rule,$(t))))

# The inputs of tests/fuzz, each once, without a fuzzer.
FUZZ := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz_says = $(shell sed -n 's,^/\* $(1): \(.*\) \*/,\1,p' tests/fuzz/fuzz_$(2).c)
define replay_rule
$(B)/tests/replay_$(1): $(B)/tests/fuzz/fuzz_$(1).o $(B)/tests/fuzz/replay.o $$(call obj,$$(addprefix $(P)/,$(call fuzz_says,links,$(1))))
	@mkdir -p $$(@D)
	$(CC) $(LDFLAGS_ALL) -o $$@ $$^ $(call fuzz_says,libs,$(1)) $(if $(findstring crypto/aead,$(call fuzz_says,links,$(1))),$(IPSECMB))
endef
$(foreach f,$(FUZZ),$(eval $(call replay_rule,$(f))))
# Parts of the module among them need nginx's headers.
NGINX_INC := $(addprefix -isystem $(NGINX_TREE)/,src/core src/event \
    src/event/modules src/event/quic src/os/unix src/http src/http/modules \
    src/http/v2 src/http/v3 objs) $(addprefix -I$(P)/,core nginx http) \
    -Wno-unused-parameter
FUZZ_NGINX := $(foreach f,$(FUZZ),$(if $(filter nginx/% http/%,\
    $(call fuzz_says,links,$(f))),$(B)/tests/fuzz/fuzz_$(f).o))
$(FUZZ_NGINX) $(call obj,$(wildcard $(P)/nginx/*.c $(P)/http/*.c)): \
    ALL_CFLAGS += $(NGINX_INC)
$(FUZZ_NGINX) $(call obj,$(wildcard $(P)/nginx/*.c $(P)/http/*.c)): \
    | $(NGINX_TREE)/objs/Makefile
REPLAY := $(addprefix $(B)/tests/replay_,$(FUZZ))

LIBPROGS := $(patsubst tests/lib/%.c,$(B)/tests/%,$(wildcard tests/lib/*.c))
$(LIBPROGS): $(B)/tests/%: tests/lib/%.c $(wildcard tests/lib/*.h)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS_ALL) -o $@ $<

# The peers are always built alike: they are not ours to test.
$(B)/tests/wgpeer: $(wildcard tests/peers/wgpeer/*.go tests/peers/go.*)
	@mkdir -p $(@D)
	cd tests/peers && go build -o $(abspath $@) ./wgpeer

# A module of its own: nothing else needs what it needs.
$(B)/tests/control: $(wildcard tests/peers/control/*)
	@mkdir -p $(@D)
	cd tests/peers/control && go build -o $(abspath $@) .

$(B)/tests/tailscaled $(B)/tests/tailscale $(B)/tests/nginx-auth: $(wildcard tests/peers/tailscaled/*)
	@mkdir -p $(@D)
	cd tests/peers/tailscaled && go build -o $(abspath $@) tailscale.com/cmd/$(@F)

tests: $(addprefix $(B)/tests/,$(UNIT)) $(REPLAY) $(LIBPROGS) $(B)/tests/wgpeer \
    $(B)/tests/control $(B)/tests/tailscaled $(B)/tests/tailscale

# What only ./dev bench uses, too.
bench: all $(B)/tests/nginx-auth $(B)/bench/whois

$(B)/bench/whois: $(B)/bench/whois.o $(call obj,$(addprefix $(P)/,core/tn_addr.c \
    core/tn_snap_read.c $(addprefix tailnetd/engine/,netmap.c publish.c publish_edit.c \
    record.c)))
	$(CC) $(LDFLAGS_ALL) -o $@ $^

layers:
	tests/lib/layers

unit-programs: $(addprefix $(B)/tests/,$(UNIT)) $(REPLAY)

list-unit:
	@echo $(addprefix $(B)/tests/,$(UNIT)) $(REPLAY)

unit: unit-programs
	prove $(addprefix $(B)/tests/,$(UNIT)) $(REPLAY)

check: layers all unit
	TAILNET_BUILD=$(abspath $(B)) prove t/

clean:
	rm -rf build build-*

PREFIX ?= /usr
install: tailnetd tailnetctl module
	install -D $(B)/tailnetd $(DESTDIR)$(PREFIX)/sbin/tailnetd
	install -D $(B)/tailnetctl $(DESTDIR)$(PREFIX)/bin/tailnetctl
	install -D -m 644 $(B)/ngx_tailnet_module.so \
	    $(DESTDIR)$(PREFIX)/lib/nginx/modules/ngx_tailnet_module.so

-include $(shell find $(B) -name '*.d' 2>/dev/null)
