# The holder is killed: its engine carries on alone, and the next reload brings
# a holder that takes everything over.  Then holder and engine are killed both:
# the namespace is found again through nginx's own listening sockets, and what
# was established goes on.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA ();
use Test::More;
use Test::Tailnet;

use constant SIZE => 60 << 20;

my $t = Test::Tailnet->new(also => ['reqloop']);

my $web = $t->nginx_node('web');
my ($alice, $bob) = map { $t->node($_) } qw(alice bob);

# Where alice is only the engine knows.
sub netmap ($bob) {
    $t->netmap('web.json', self => $web,
        peers => [{ %$alice, endpoints => [] }, $bob]);
}
netmap($bob);

$t->write_config(<<'EOF');
worker_processes 2;
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
        root %%TESTDIR%%/html;
        location / {
            tailnet_acl accept *;
        }
        location /late {
            tailnet_acl accept tag:late;
            alias %%TESTDIR%%/html/index.html;
        }
    }
}
EOF
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");
my $body = join '', map { pack('N', $_) x 1024 } 1 .. SIZE / 4096;
$t->write_file('html/big', $body);
my $sha = Digest::SHA::sha256_hex($body);

$t->run;
my %peer = map { $_->{name} => $t->start_wgpeer($_, peers => [$web]) }
    $alice, $bob;
$t->expect_alert(qr{engine \d+ (?:was killed by signal 9|is gone)});

sub loop ($who) {
    return $t->start_reqloop($who, url => 'http://100.64.0.1:80/',
        parallel => 8, interval => 5, timeout => 10_000, size => 6);
}

sub unharmed ($loop, $limit, $what) {
    my $s = $loop->stop;
    is($s->{failures}, 0, "$what: none of $s->{requests} requests failed")
        or diag(explain($s->{reasons}));
    cmp_ok($s->{max_gap_ms}, '<', $limit, "$what: nobody waited long");
    note("$what: gap $s->{max_gap_ms} ms, request $s->{max_ms} ms");
}

my $big = $t->fetch('bob', 'http://100.64.0.1/big', rate => '5M',
    timeout => 60);
ok($big->wait_received(1 << 20, 10), 'bob has begun a long download');

my $loop = loop('alice');
my $engine = $t->engine;
my $mark = $t->log_mark;
ok(my $holder = $t->kill_holder, 'the holder is killed');
ok($t->requests(200), 'requests go on');
is($t->engine, $engine, 'with the same engine');
like($t->ctl('status')->{output}, qr/tailnetctl: /,
    'nobody answers to tailnetctl');
ok($t->wait_for_log(qr/\[error\].*lost the channel to tailnetd/, 5,
    from => $mark), 'workers tell so');

$mark = $t->log_mark;
ok($t->reload, 'nginx reloads');
ok($t->holder && $t->holder != $holder, 'there is a new holder');
is($t->engine, $engine, 'the engine is the old one');
like($t->log_since($mark), qr/node web: its namespace was found again/,
    'the new holder says what it found');
like($t->log_since($mark), qr/engine $engine of the tailnetd before goes on/,
    'and what it adopted');
like($t->ctl('status')->{output}, qr/^web: running.*bob\.tailnet\.test/s,
    'tailnetctl is answered');
ok($t->requests(200), 'requests go on');
unharmed($loop, 1000, 'holder killed');

# The new holder does all the old one did.
is($t->http_get('bob', 'http://100.64.0.1/late')->status, 403,
    'bob lacks a tag');
$mark = $t->log_mark;
netmap({ %$bob, tags => ['tag:late'] });
ok($t->wait_for_log(qr/netmap applied: 2 peers/, 5, from => $mark),
    'a new netmap is read, and the engine is heard');
is(Test::Tailnet::Process::until_true(5, sub {
    $t->http_get('bob', 'http://100.64.0.1/late')->status == 200 }), 1,
    'workers know of it');

$loop = loop('alice');
ok($t->kill_engine, 'the engine is killed, another starts');
ok($t->requests(200), 'requests go on');
unharmed($loop, 2000, 'adopted engine killed');

$loop = loop('bob');
$engine = $t->engine;
ok($t->kill_holder, 'the holder is killed');
kill 'KILL', $engine;
ok($t->wait_gone(5, $engine), 'and the engine');
$mark = $t->log_mark;
ok($t->reload, 'nginx reloads');
# Who speaks first makes new keys: bob would only after 15 s without an answer,
# and nginx does when it has data for him, which here is left to a ping.
my $ping = $t->ctl('ping', $bob->{addr}[0]);
ok($ping->{ok}, 'bob is reached') or diag($ping->{output});
ok($t->requests(200), 'requests go on');
like($t->log_since($mark), qr/node web: its namespace was found again/,
    'the namespace was found through a socket of nginx');
like($t->log_since($mark), qr/engine of the tailnetd before is gone too/,
    'the engine was not');
unharmed($loop, 4000, 'both killed');
ok($big->alive, "bob's download spans it all");
my $r = $big->response;
ok($r->ok, 'and comes to its end') or diag($r->text);
is($r->sha256, $sha, 'whole and right');

$peer{alice}->remove_peer($web);
$peer{alice}->add_peer($web);
is($t->http_get('alice', 'http://100.64.0.1/')->status, 200,
    'alice is back when she shakes hands');

$t->done_testing;
