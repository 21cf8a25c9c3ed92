# A reload that fails changes nothing, wherever it fails; one that works adds
# and removes listeners and nodes; an upgrade that is broken off leaves the old
# configuration ruling.

use v5.36;

use Fcntl qw(LOCK_EX);
use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(also => ['reqloop']);

my $web = $t->nginx_node('web');
my $lab = $t->nginx_node('lab', port => 41642);
my ($alice, $bob) = map { $t->node($_) } qw(alice bob);
# With rules a port without a listener refuses; without, it would be filtered.
my @rules = ({ src => ['*'], dst => ['*:80-99'] });
$t->netmap('web.json', self => $web, peers => [$alice], rules => \@rules);
$t->netmap('lab.json', self => $lab, peers => [$bob], rules => \@rules);

# What differs between the configurations here: nodes by their names, mesh
# ports of them, and directives elsewhere.
sub config (%o) {
    my $nodes = join '', map { <<"EOF" } ($o{nodes} // ['web'])->@*;
tailnet_node $_ {
    netmap       %%TESTDIR%%/$_.json;
    private_key  %%TESTDIR%%/$_.key;
    port         @{[$_ eq 'web' ? 41641 : 41642]};
}
EOF
    my $acl = join ' ', map { "$_/*" } ($o{nodes} // ['web'])->@*;
    my $listen = join ' ', map { "tailnet_listen $_;" }
        ($o{listen} // ['web:80'])->@*;
    $t->write_config(<<"EOF");
worker_processes 2;
tailnet_engine binary=%%TAILNETD%%;
$nodes
@{[$o{main} // '']}
events { }
http {
    server {
        $listen
        listen 127.0.0.1:%%PORT_8000%%;
        tailnet_acl accept $acl local;
        add_header X-Version @{[$o{version} // 1]};
        root %%TESTDIR%%/html;
        @{[$o{server} // '']}
    }
}
EOF
}

mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");
$t->write_file('html/big', 'x' x (20 << 20));
config();
$t->run;
$t->start_wgpeer($alice, peers => [$web]);
my $wg = $t->start_wgpeer($bob, peers => [$lab]);

# Who answers there, or curl's words about nobody.
sub version ($who, $url) {
    my $r = $t->http_get($who, $url, timeout => 2);
    return $r->header('X-Version') // $r->error;
}

# Bob shakes hands with "lab" at his next packet: what he knows of the node that
# was there before, or that there was none, is forgotten.
sub shake () {
    $wg->remove_peer($lab);
    $wg->add_peer($lab);
}

sub web ($port = 80) { version('alice', "http://100.64.0.1:$port/") }
sub lab () { version('bob', 'http://100.64.0.2/') }

# What a reload that fails must not add to.
sub census () {
    return {
        holder => $t->fd_kinds($t->holder),
        engine => $t->fd_kinds($t->engine),
        master => $t->fd_kinds($t->master),
        nodes => [sort $t->ctl('status')->{output} =~ /^(\w+): /mg],
        nginx => scalar($t->children($t->master)),
    };
}

# Processes that end take a moment, and so does the holder to see that the
# tailnetctl of the last census has gone.
sub unchanged ($before, $what) {
    my $now;

    Test::Tailnet::Process::until_true(5, sub {
        $now = census();
        return eq_hash($now, $before);
    });
    is_deeply($now, $before, $what);
}

# A reload that works, and the workers of before take nothing new.
sub reloaded ($what, %o) {
    my %old = map { $_ => 1 } $t->workers;
    config(%o);
    ok($t->reload, $what);
    Test::Tailnet::Process::until_true(5,
        sub { !grep { $old{$_} } $t->workers });
}

# What curl says when it is refused.
my $refused = qr/refused|Couldn't connect to server/;

# A download that goes on while something happens.
sub whole ($get) {
    my $r = $get->response;
    ok($r->ok, 'to its end') or diag($r->text);
}

is(web, 1, 'the first configuration rules');
my $before = census();
my $loop = $t->start_reqloop('alice', url => 'http://100.64.0.1:80/',
    parallel => 4, interval => 5, timeout => 10_000, size => 6);

# Each would change nodes and listeners too; %fails is nginx's last word.
my %bad = (
    directive => { server => 'no_such_directive on;' },
    bind => { server => 'listen 127.0.0.1:%%PORT_8001%%;' },
    log => { server => 'access_log %%TESTDIR%%/no/such/folder.log;' },
    key => {},
    silence => {},
);
my %fails = (
    directive => qr/unknown directive "no_such_directive"/,
    bind => qr/still could not bind/,
    log => qr{/no/such/folder\.log" failed},
    key => qr{lab\.key: this node key is in use by another tailnetd},
    silence => qr/tailnetd at ".*" does not answer/,
);

# Somebody else has the port that the new configuration wants.
my $taken = $t->start_httpd('host', addr => '127.0.0.1', port => 8001);
$t->expect_alert($_)
    for values %fails, qr/127\.0\.0\.1:8001.*Address already in use/;

sub fail_reload ($kind) {
    my $mark = $t->log_mark;
    config(version => 2, nodes => ['lab', 'web'],
        listen => ['web:80', 'web:81', 'lab:80'], $bad{$kind}->%*);
    $t->signal_nginx('HUP');
    return $t->wait_for_log($fails{$kind}, 10, from => $mark);
}

for my $kind (qw(bind directive log)) {
    ok(fail_reload($kind), "$kind: a reload fails");
    is(web, 1, "$kind: the old configuration rules");
    like(web(81), $refused, "$kind: no new listener");
    like(lab, qr/timed out/i, "$kind: no new node");
}
# tailnetd is there, but refuses a node or says nothing in time.
open my $key, '<', $t->testdir . '/lab.key' or die "lab.key: $!";
flock $key, LOCK_EX or die "lab.key: $!";
ok(fail_reload('key'), 'key: a reload fails');
my $mark = $t->log_mark;
$t->signal_nginx('USR2');
ok($t->wait_for_log($fails{key}, 10, from => $mark),
    'key: so does a new binary');
ok(Test::Tailnet::Process::until_true(10,
    sub { ($t->pid_of('nginx.pid') // 0) == $t->master }), 'key: it ends');
close $key;
is(web, 1, 'key: the old configuration rules');
unchanged($before, 'key: tailnetd and nginx have what they had');

my $holder = $t->holder;
kill 'STOP', $holder;
ok(fail_reload('silence'), 'silence: a reload fails');
kill 'CONT', $holder;
is(web, 1, 'silence: the old configuration rules');
unchanged($before, 'silence: tailnetd and nginx have what they had');

is(scalar(grep { fail_reload($_) } ('directive', 'log') x 4), 8,
    'eight more reloads fail');
unchanged($before, 'tailnetd and nginx have what they had');
$taken->stop;

reloaded('a reload adds a listener', version => 3,
    listen => ['web:80', 'web:81']);
is(web(81), 3, 'it serves');
my $big = $t->fetch('alice', 'http://100.64.0.1:81/big', rate => '4M',
    timeout => 60);
ok($big->wait_received(1 << 20, 10), 'a download there');
reloaded('a reload removes it', version => 4);
is(web, 4, 'the other listener serves');
like(web(81), $refused, 'the removed one refuses at once');
ok($big->alive, 'while the download goes on');
whole($big);

reloaded('a reload adds a node', version => 5, nodes => ['web', 'lab'],
    listen => ['web:80', 'lab:80']);
shake();
is(lab, 5, 'it serves');
$big = $t->fetch('bob', 'http://100.64.0.2/big', rate => '4M', timeout => 60);
ok($big->wait_received(1 << 20, 10), 'a download there');
$mark = $t->log_mark;
reloaded('a reload removes it', version => 6);
is(web, 6, 'the other node serves');
like(lab, $refused, 'the removed one refuses');
ok($big->alive, 'while its worker and the download go on');
whole($big);
ok($t->wait_for_log(qr/node lab: nobody uses it any more/, 10,
    from => $mark), 'then the node is given up');
like(lab, qr/timed out/i, 'and gone');
unchanged($before, 'nothing is left of listener and node');

config(version => 7, nodes => ['web', 'lab'],
    listen => ['web:80', 'web:82', 'lab:80']);
ok($t->upgrade_start, 'a new binary starts');
is(web(82), 7, 'its own listener serves');
shake();
is(lab, 7, 'and its own node');
ok($t->upgrade_abort, 'it is told to end');
is(web, 6, 'the old one serves');
like(web(82), $refused, 'the listener is gone');
unchanged($before, 'nothing is left of it');

my $s = $loop->stop;
is($s->{failures}, 0, "none of $s->{requests} requests failed")
    or diag(explain($s->{reasons}));
cmp_ok($s->{max_gap_ms}, '<', 1000, 'nobody waited long');
note("gap $s->{max_gap_ms} ms, request $s->{max_ms} ms");

$t->done_testing;
