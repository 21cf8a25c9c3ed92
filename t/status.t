# tailnet_status: what tailnetd knows, as JSON, for those who may look.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP qw(decode_json);
use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');
my $bob = $t->node('bob', user => 'bob@example.com');
$t->netmap('web.json', self => $web, peers => [$alice, $bob]);

my $config = <<'EOF';
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    server {
        tailnet_listen 80;
        listen 127.0.0.1:8080;
        location = /status {
            tailnet_acl accept alice@example.com local;
            tailnet_status;
        }
        location = /open { tailnet_status; }
        location = /ping { return 200 "pong\n"; }
    }
}
EOF
$t->write_config($config);
$t->run;
$t->start_wgpeer($_, peers => [$web]) for $alice, $bob;

my $mesh = 'http://100.64.0.1';
my $lan = 'http://127.0.0.1:8080';

my $r = $t->http_get('alice', "$mesh/status");
is($r->status, 200, 'alice may look') or diag($r->text);
is($r->header('content-type'), 'application/json', 'at JSON');
is($r->header('content-length'), $r->size, 'of a known length');
my $status = eval { decode_json($r->body) };
ok($status, 'it is JSON') or diag($@, $r->body);
my ($node) = $status->{nodes}->@*;
is($node->{name}, 'web', 'the node');
is($node->{state}, 'running', 'and its state');
is_deeply([sort map { $_->{name} } $node->{peers}->@*],
    ['alice.tailnet.test', 'bob.tailnet.test'], 'its peers');
is($t->http_get('bob', "$mesh/status")->status, 403, 'bob may not look');

# without(status): less what changes by itself.
sub without ($value) {
    return [map { without($_) } @$value] if ref $value eq 'ARRAY';
    return $value if ref $value ne 'HASH';
    return { map { my $v = $value->{$_};
        ($_ => ref $v ? without($v)
            : ($v // 0) =~ /^\d+\z/ ? 'number' : $v) } keys %$value };
}
my $ctl = $t->ctl('status', '--json');
ok($ctl->{ok}, 'tailnetctl status --json') or diag($ctl->{output});
is_deeply(without($status), without(decode_json($ctl->{stdout})),
    'tailnetctl says the same');

my $mark = $t->log_mark;
is($t->http_get('alice', "$mesh/open")->status, 403,
    'nobody may look without tailnet_acl');
like($t->log_since($mark), qr/\[error\].*tailnet_status.*"tailnet_acl"/,
    'the log says why');
my $checked = $t->test_config($config);
ok($checked->{ok}, 'nginx -t takes that');
like($checked->{output},
    qr/\[warn\] "tailnet_status" without "tailnet_acl".*test\.conf:16$/m,
    'and warns, with the place');
is(() = $checked->{output} =~ /\[warn\]/g, 1, 'about the one place');
$checked = $t->test_config($config =~
    s/(tailnet_status;)/$1 $1/r);
like($checked->{output}, qr/"tailnet_status" directive is duplicate/,
    'twice is a mistake');

$r = $t->http_get('host', "$lan/status", curl => ['-I']);
is($r->status, 200, 'HEAD');
cmp_ok($r->header('content-length'), '>', 100, 'HEAD tells the length');
$r = $t->http_get('host', "$lan/status", data => 'x');
is($r->status, 405, 'POST is refused');
$r = $t->run_in('host', 'curl', '-q', '-sS', '-w',
    '%{http_code} %{num_connects}\n',
    map { ('-o', '/dev/null', "$lan/status") } 1 .. 3);
is($r->{stdout}, "200 1\n200 0\n200 0\n", 'three times over one connection');

# Who does not wait for the answer.
my $holder = $t->holder;
kill 'STOP', $holder;
$mark = $t->log_mark('access.log');
my @gone = map { $t->fetch('host', "$lan/status", timeout => 0.3) } 1 .. 3;
is($_->response->status, 0, 'no answer while tailnetd is stopped') for @gone;
is($t->http_get('host', "$lan/ping")->status, 200,
    'the worker does not wait for it');
ok($t->wait_for_log(qr/(?:"GET \/status HTTP\/1.1" 499 .*\n.*){3}/, 2,
    file => 'access.log', from => $mark),
    'those who left are not waited for either');
kill 'CONT', $holder;
is($t->http_get('host', "$lan/status")->status, 200, 'it goes on');

# Many peers.
my @many = map { {
    %$bob,
    name => "p$_",
    id => 1000 + $_,
    addr => [sprintf('100.65.%d.%d', $_ >> 8, $_ & 255),
        sprintf 'fd7a:115c:a1e0::1:%x', $_],
    endpoints => [],
    pub => 'nodekey:' . join '', map { sprintf '%02x', rand 256 } 1 .. 32,
} } 1 .. 2000;
$t->netmap('web.json', self => $web, peers => [$alice, $bob, @many]);
my $peers = [];
ok(Test::Tailnet::Process::until_true(5, sub {
    $r = $t->http_get('alice', "$mesh/status");
    $status = eval { decode_json($r->body) } // return 0;
    $peers = $status->{nodes}[0]{peers};
    return @$peers > 2000;
}), 'many peers');
is(@$peers, 2002, 'all of them') or diag($r->text);

# tailnetd is gone.
$mark = $t->log_mark;
$t->kill_holder;
ok($t->wait_for_log(qr/lost the channel to tailnetd/, 5, from => $mark),
    'the worker sees that tailnetd is gone');
$r = $t->http_get('host', "$lan/status");
is($r->status, 503, 'no status then');
like($t->log_since($mark), qr/tailnet_status: tailnetd is not there/,
    'the log says so');
is($t->http_get('host', "$lan/ping")->status, 200, 'the worker lives');

ok($t->reload, 'a reload');
ok(Test::Tailnet::Process::until_true(5,
    sub { $t->http_get('host', "$lan/status")->status == 200 }),
    'brings it back');

$t->done_testing;
