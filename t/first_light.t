# First light: wireguard-go peers ask nginx, nginx knows who they are, over a
# reload and the death of the engine.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');
my $bob = $t->node('bob', user => 'bob@example.com');

# Nobody's endpoint is in the netmap: who was there is known by what came.
$t->netmap('web.json', self => $web,
    peers => [map { { %$_, endpoints => [] } } $alice, $bob],
    users => { 'alice@example.com' => { DisplayName => 'Alice Liddell' } });

$t->write_config(<<'EOF');
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
        location / {
            tailnet_acl accept alice@example.com;
            add_header X-User $tailnet_user;
            add_header X-Name $tailnet_user_name;
            add_header X-Node $tailnet_node;
            root %%TESTDIR%%/html;
        }
    }
}
EOF
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");

$t->run;
$t->start_wgpeer($_, peers => [$web]) for $alice, $bob;

sub asks ($who, $status, $what) {
    my $r = $t->http_get($who, 'http://100.64.0.1/');
    is($r->status, $status, $what) or diag($r->text);
    return $r;
}

my $r = asks('alice', 200, 'alice is let in');
is($r->header('x-user'), 'alice@example.com', 'by her login');
is($r->header('x-name'), 'Alice Liddell', 'nginx knows her name');
like($r->header('x-node'), qr/^alice\./, 'and her node');
is($r->body, "hello\n", 'the file comes');
asks('bob', 403, 'bob is not');
is($t->http_get('alice', 'http://[fd7a:115c:a1e0::1]/')->status, 200,
    'IPv6 too');

ok($t->reload, 'nginx reloads');
asks('alice', 200, 'alice after the reload');
asks('bob', 403, 'bob after the reload');

my ($engine) = grep { Test::Tailnet::Process::title($_) =~ /--engine/ }
    $t->own_pids;
ok($engine, 'the engine is a process');
$t->expect_alert(qr{engine \d+ was killed by signal 9});
my $mark = $t->log_mark;
kill KILL => $engine;
ok($t->wait_for_log(qr/engine.*signal 9/, 5, from => $mark),
    'its death is in the log');
my $start = time;
asks('alice', 200, 'alice after the engine was killed');
asks('bob', 403, 'bob after the engine was killed');
cmp_ok(time - $start, '<=', 3, 'without a long wait');

$t->done_testing;
