# tailnet_acl: every selector, order, inheritance, satisfy, internal redirects
# and subrequests; two networks with equal addresses and names in one nginx.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web', tags => [], user => 'alice@example.com');
my $alice = $t->node('alice', user => 'alice@example.com');
my $bob = $t->node('bob', user => 'bob@example.com');
my $ci = $t->node('ci', tags => ['tag:ci', 'tag:arm']);
my $guest = $t->node('guest', user => 'guest@other.org',
    fqdn => 'guest.other.test.', map => { Sharer => 1000 });
my $twin = $t->node('twin', user => 'alice@example.com', addr => $alice->{addr},
    fqdn => 'alice.tailnet.test.', stable_id => 'n2TEST');
my $lab = $t->nginx_node('lab', port => 41642, addr => $web->{addr});
my $old = $t->node('old', user => 'alice@example.com',
    key_expiry => '2001-01-01T00:00:00Z');
my %peers = map { $_->{name} => $_ } $alice, $bob, $ci, $guest, $old;
my %labour = (
    twin => $twin,
    twinci => $t->node('twinci', tags => ['tag:ci'], addr => $ci->{addr},
        fqdn => 'ci.tailnet.test.'),
);

$t->netmap('web.json', self => $web, peers => [values %peers]);
$t->netmap('lab.json', self => $lab, peers => [values %labour]);
$t->write_file('passwd', "carol:{PLAIN}secret\n");
mkdir $t->testdir . '/html';
$t->write_file("html/$_", "this is $_\n") for qw(index.html file.html);

# location => [rules, who is let in].  "host" asks nginx's ordinary listener.
my @table = (
    ['accept *', qw(alice bob ci guest)],
    ['reject *'],
    ['accept tag:ci', qw(ci)],
    ['accept tag:arm', qw(ci)],
    ['accept tag:c'],
    ['accept alice@example.com', qw(alice)],
    ['accept Alice@Example.COM', qw(alice)],
    ['accept user:bob@example.com', qw(bob)],
    ['accept guest@other.org', qw(guest)],
    ['accept autogroup:member', qw(alice bob)],
    ['accept autogroup:tagged', qw(ci)],
    ['accept autogroup:self', qw(alice)],
    ['accept autogroup:shared', qw(guest)],
    ["accept $bob->{addr}[0]", qw(bob)],
    ["accept $bob->{addr}[1]"],
    ['accept 100.64.0.0/30', qw(alice bob)],
    ['accept 100.64.0.0/10', qw(alice bob ci guest)],
    ['accept 192.0.2.0/24'],
    ['accept bob', qw(bob)],
    ['accept BOB', qw(bob)],
    ['accept guest'],
    ['accept bob.tailnet.test', qw(bob)],
    ['accept Bob.tailnet.test.', qw(bob)],
    ['accept guest.other.test', qw(guest)],
    ['accept bob.other.test'],
    ['accept local', qw(host)],
    ['accept local *', qw(host alice bob ci guest)],
    ['reject bob; accept *', qw(alice ci guest)],
    ['accept *; reject bob', qw(alice bob ci guest)],
    ['accept ci bob; reject *; accept alice', qw(bob ci)],
    ['accept autogroup:member; accept local; reject *', qw(host alice bob)],
);

my $locations = join '', map {
    my $rules = join ' ', map { "tailnet_acl $_;" } split /; */, $table[$_][0];
    "location /$_/ { $rules alias %%TESTDIR%%/html/; }\n"
} 0 .. $#table;

$t->write_config(<<"EOF");
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
tailnet_node lab {
    netmap       %%TESTDIR%%/lab.json;
    private_key  %%TESTDIR%%/lab.key;
    port         41642;
}
events { }
http {
    server {
        tailnet_listen web:80;
        listen 8080;
        $locations
    }

    server {
        tailnet_listen web:81;
        tailnet_acl accept alice;
        root %%TESTDIR%%/html;
        add_header X-Acl \$tailnet_acl always;

        location /inherits/ { alias %%TESTDIR%%/html/; }
        location /other/ {
            tailnet_acl accept bob;
            alias %%TESTDIR%%/html/;
            location /other/nested/ { alias %%TESTDIR%%/html/; }
            location /other/own/ {
                tailnet_acl accept ci;
                alias %%TESTDIR%%/html/;
            }
        }
        location /method/ {
            tailnet_acl accept *;
            alias %%TESTDIR%%/html/;
            limit_except GET { tailnet_acl accept alice; }
        }
        location /any/ {
            satisfy any;
            auth_basic any;
            auth_basic_user_file %%TESTDIR%%/passwd;
            alias %%TESTDIR%%/html/;
        }
        location /all/ {
            auth_basic all;
            auth_basic_user_file %%TESTDIR%%/passwd;
            alias %%TESTDIR%%/html/;
        }
        location /open-any/ {
            satisfy any;
            deny all;
            alias %%TESTDIR%%/html/;
        }
    }

    server {
        tailnet_listen web:82;
        root %%TESTDIR%%/html;
        tailnet_acl accept alice;
        error_page 403 /denied;

        location = /denied {
            tailnet_acl accept *;
            internal;
            try_files /nothing \@denied;
        }
        location \@denied {
            tailnet_acl accept *;
            add_header X-User \$tailnet_user always;
            proxy_pass http://unix:%%TESTDIR%%/back.sock;
        }
        location /plain {
            error_page 403 /plain-denied;
            tailnet_acl accept alice;
        }
        location = /plain-denied { }
        location /sub/ {
            tailnet_acl accept *;
            auth_request /auth;
            alias %%TESTDIR%%/html/;
        }
        location = /auth {
            internal;
            tailnet_acl reject *;
            proxy_set_header X-User \$tailnet_user;
            proxy_pass http://unix:%%TESTDIR%%/back.sock:/auth;
        }
        location /named {
            tailnet_acl accept *;
            try_files /nothing \@named;
        }
        location \@named {
            tailnet_acl accept ci;
            add_header X-Acl \$tailnet_acl always;
            try_files /file.html =404;
        }
        location /rewritten {
            tailnet_acl accept ci;
            rewrite ^ /named-open last;
        }
        location /named-open {
            tailnet_acl accept bob;
            try_files /file.html =404;
        }
    }

    server {
        listen unix:%%TESTDIR%%/back.sock;
        location / { return 200 "back\n"; }
        location /auth {
            if (\$http_x_user = bob\@example.com) { return 403; }
            return 200;
        }
    }

    server {
        tailnet_listen web:83;
        tailnet_listen lab:83;
        root %%TESTDIR%%/html;
        add_header X-Node \$tailnet_node;
        add_header X-Id \$tailnet_identity;

        location /tag/ {
            tailnet_acl accept web/tag:ci;
            alias %%TESTDIR%%/html/;
        }
        location /user/ {
            tailnet_acl accept lab/alice\@example.com;
            alias %%TESTDIR%%/html/;
        }
        location /addr/ {
            tailnet_acl accept web/100.64.0.2;
            alias %%TESTDIR%%/html/;
        }
        location /host/ {
            tailnet_acl accept lab/ci;
            alias %%TESTDIR%%/html/;
        }
        location /member/ {
            tailnet_acl reject lab/*;
            tailnet_acl accept web/autogroup:member;
            alias %%TESTDIR%%/html/;
        }
        location /none/ {
            tailnet_acl reject *;
            alias %%TESTDIR%%/html/;
        }
    }
}
EOF

$t->run;
$t->start_wgpeer($_, peers => [$web]) for values %peers;
$t->start_wgpeer($_, peers => [$lab]) for values %labour;
$t->wait_http($_, 'http://100.64.0.1/none') for qw(alice bob ci guest);

my $home = $t->underlay('host');
my %base = (
    host => "http://$home:8080",
    map { $_ => 'http://100.64.0.1' } qw(alice bob ci guest),
);

sub status ($who, $url, %o) { $t->http_get($who, $url, %o)->status }

# Each asks for all locations in one go.
my %status;
for my $who (sort keys %base) {
    my $r = $t->run_in($who, 'curl', '-q', '-s', '-m', 20, '-o', '/dev/null',
        '-w', '%{http_code}\n', "$base{$who}/[0-$#table]/");
    $status{$who} = [split /\n/, $r->{stdout}];
}
for my $i (0 .. $#table) {
    my ($rules, @in) = $table[$i]->@*;
    my %want = map { $_ => 403 } keys %base;

    $want{$_} = 200 for @in;
    is_deeply({ map { $_ => $status{$_}[$i] } keys %base }, \%want, $rules);
}

my ($six) = grep { $table[$_][0] =~ /accept fd7a/ } 0 .. $#table;
is(status('alice', 'http://[fd7a:115c:a1e0::1]/0/'), 200, '* by IPv6');
is(status('bob', "http://[fd7a:115c:a1e0::1]/$six/"), 200, 'an IPv6 address');
is(status('alice', "http://[fd7a:115c:a1e0::1]/$six/"), 403, "another's");

# Text of the rule, and the line that says who was refused.
my $r = $t->http_get('alice', 'http://100.64.0.1:81/inherits/');
is($r->status, 200, 'rules of the server are inherited');
is($r->header('x-acl'), 'accept alice', '$tailnet_acl is the rule');
my $mark = $t->log_mark;
$r = $t->http_get('bob', 'http://100.64.0.1:81/inherits/');
is($r->status, 403, 'and refuse others');
is($r->header('x-acl'), 'reject (no rule matched)', '$tailnet_acl: none');
my $line = 'access forbidden by tailnet_acl: "bob@example.com" '
    . '(bob.tailnet.test, 100.64.0.3), reject (no rule matched), client: ';
ok($t->wait_for_log(qr/\Q$line\E/, 5, from => $mark),
    'a line for the refused');
is(() = $t->log_since($mark) =~ /access forbidden/g, 1, 'one line');

for my $case (
    ['/other/', alice => 403, bob => 200],
    ['/other/nested/', alice => 403, bob => 200],
    ['/other/own/', alice => 403, bob => 403, ci => 200],
) {
    my ($path, %want) = @$case;
    is(status($_, "http://100.64.0.1:81$path"), $want{$_}, "$path $_")
        for sort keys %want;
}

is(status('bob', 'http://100.64.0.1:81/method/'), 200, 'limit_except: GET');
is(status('bob', 'http://100.64.0.1:81/method/', method => 'DELETE'), 403,
    'limit_except: DELETE of another');
is(status('alice', 'http://100.64.0.1:81/method/', method => 'DELETE'), 405,
    'limit_except: DELETE of the one');

my @login = (curl => ['-u', 'carol:secret']);
$mark = $t->log_mark;
is(status('alice', 'http://100.64.0.1:81/any/'), 200, 'satisfy any: by rule');
is(status('bob', 'http://100.64.0.1:81/any/', @login), 200,
    'satisfy any: by password');
unlike($t->log_since($mark), qr/\[error\].*tailnet_acl/,
    'who is let in by another way is no error');
is(status('bob', 'http://100.64.0.1:81/any/'), 401, 'satisfy any: neither');
is(status('alice', 'http://100.64.0.1:81/all/'), 401, 'all: rule only');
is(status('bob', 'http://100.64.0.1:81/all/', @login), 403,
    'all: password only');
is(status('alice', 'http://100.64.0.1:81/all/', @login), 200, 'all: both');
is(status('alice', 'http://100.64.0.1:81/open-any/'), 200,
    'satisfy any with deny all');
is(status('bob', 'http://100.64.0.1:81/open-any/'), 403, 'and without right');

# Internal redirects and subrequests.
$r = $t->http_get('bob', 'http://100.64.0.1:82/');
is($r->status, 403, 'error_page 403');
is($r->header('x-user'), 'bob@example.com', 'knows who it is');
is($r->body, "back\n", 'and its body comes');
is(status('alice', 'http://100.64.0.1:82/'), 200, 'others do not see it');
$r = $t->http_get('bob', 'http://100.64.0.1:82/plain');
is($r->status, 403, 'an error page that is refused too');
like($r->body, qr/403 Forbidden.*nginx/s, "gives nginx's own page");
is(status('alice', 'http://100.64.0.1:82/sub/'), 200,
    'a subrequest is not subject to rules');
is(status('bob', 'http://100.64.0.1:82/sub/'), 403,
    'but knows who asks');
is(status('bob', 'http://100.64.0.1:82/named'), 403,
    "a named location's rules hold");
$r = $t->http_get('ci', 'http://100.64.0.1:82/named');
is($r->body, "this is file.html\n", 'and let in');
is($r->header('x-acl'), 'accept ci', '$tailnet_acl is the last that decided');
is(status('bob', 'http://100.64.0.1:82/rewritten'), 200,
    'rewrite: the last location decides');
is(status('ci', 'http://100.64.0.1:82/rewritten'), 403, 'and it alone');

# Two networks.
for my $case (
    ['/tag/', ci => 200, twinci => 403],
    ['/user/', alice => 403, twin => 200],
    ['/addr/', alice => 200, twin => 403, bob => 403],
    ['/host/', ci => 403, twinci => 200],
    ['/member/', alice => 200, bob => 200, twin => 403, ci => 403],
    ['/none/', alice => 403, twin => 403],
) {
    my ($path, %want) = @$case;
    is(status($_, "http://100.64.0.1:83$path"), $want{$_}, "two: $path $_")
        for sort keys %want;
}
my @ids = map { $t->http_get($_->[0], "http://100.64.0.1:83/$_->[1]/")
    ->header('x-id') } [alice => 'addr'], [twin => 'user'];
is($ids[0], 'alice@example.com/tailnet.test/tailnet.test',
    'the identity names user and network');

# A cut off peer does not come through at all.
is($t->http_get('old', 'http://100.64.0.1/0/', timeout => 1)->status, 0,
    'an expired peer reaches nothing');

for my $case (
    ['accept', qr/invalid number of arguments/],
    ['accept tag:', qr/invalid selector "tag:": tag is empty.* in .*:\d+/],
    ['permit *', qr/invalid value "permit", "accept" or "reject" is needed/],
    ['accept TAG:ci', qr/invalid selector "TAG:ci"/],
    ['accept group:x', qr/who is in a group/],
    ['accept 10.0.0.0/33', qr{invalid selector "10.0.0.0/33"}],
    ['accept 10.0.0.1/8', qr{invalid selector "10.0.0.1/8"}],
    ['accept lap/bob', qr/lap/],
    ['accept bob', qr/must say of which node's tailnet/],
    ['accept web/local', qr/"local" is nobody of a tailnet/],
) {
    my ($rule, $why) = @$case;
    my $got = $t->test_config(<<"EOF");
tailnet_node web { netmap %%TESTDIR%%/web.json;
    private_key %%TESTDIR%%/web.key; }
tailnet_node lab { netmap %%TESTDIR%%/lab.json;
    private_key %%TESTDIR%%/lab.key; }
events { }
http {
    server {
        tailnet_listen web:80;
        tailnet_listen lab:80;
        tailnet_acl $rule;
    }
}
EOF
    ok(!$got->{ok}, "\"tailnet_acl $rule\" is refused");
    like($got->{output}, $why, 'with the reason');
    like($got->{output}, qr/test\.conf:10\b/, 'and the place');
}

$t->done_testing;
