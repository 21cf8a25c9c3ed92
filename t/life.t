# From the first start of a tailnetd to its end: stale files, log rotation, a
# second nginx, the end of nginx in a hurry and in good order.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Socket::UNIX;
use Socket qw(SOCK_SEQPACKET);
use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $other = $t->nginx_node('other', port => 41642);
my $alice = $t->node('alice');
my $dir = $t->testdir;
my $socket = "$dir/nginx-tailnet/admin.sock";

sub netmap () {
    $t->netmap('web.json', self => $web, peers => [$alice]);
}
netmap();
$t->netmap('other.json', self => $other, peers => [$alice]);

$t->write_config(<<'EOF');
worker_processes 1;
tailnet_engine binary=%%TAILNETD%% timing=linger=1000;
tailnet_node web {
    netmap       %%TESTDIR%%/web.json;
    private_key  %%TESTDIR%%/web.key;
    port         41641;
}
events { }
http {
    server {
        tailnet_listen 80 sndbuf=256k;
        tailnet_acl accept *;
        root %%TESTDIR%%/html;
    }
}
EOF
mkdir "$dir/html";
$t->write_file('html/index.html', "hello\n");
$t->write_file('html/big', 'x' x (12 << 20));

sub tailnetd ($where = $dir) {
    my $holder = $t->holder($where) // return ();
    return ($holder, $t->engine($holder) // ());
}

sub asks ($status, $what) {
    my $r = $t->http_get('alice', 'http://100.64.0.1/');
    is($r->status, $status, $what) or diag($r->text);
}

sub ended ($what, $seconds, @pids) {
    is(scalar(@pids), 2, "$what: there are a holder and an engine");
    my $began = time;
    ok($t->wait_gone($seconds, @pids), "$what: they end by themselves");
    note("$what: after ", time - $began, ' s');
    ok(!-e $socket && !-e "$socket.lock", "$what: no file is left");
}

# ---- a stale socket ----

mkdir "$dir/nginx-tailnet", 0700;
IO::Socket::UNIX->new(Type => SOCK_SEQPACKET, Local => $socket, Listen => 1)
    or die "$socket: $!";
ok(-S $socket, 'a socket that nobody listens at is in the way');
$t->run;
my $wg = $t->start_wgpeer($alice, peers => [$web]);
asks(200, 'nginx serves');
like($t->ctl('status')->{output}, qr/^web: running/, 'the socket is ours');

# ---- log rotation ----

rename "$dir/error.log", "$dir/error.log.1" or die "error.log: $!";
$t->signal_nginx('USR1');
ok(Test::Tailnet::Process::until_true(5, sub { -e "$dir/error.log" }),
    'nginx opens a new log');
my $old = -s "$dir/error.log.1";
# The log's name is looked at once a second.
ok(Test::Tailnet::Process::until_true(5, sub {
    netmap();
    return $t->wait_for_log(qr/tailnetd: .*netmap applied: 1 peer/, 0.3);
}), 'tailnetd follows');

# ---- a second nginx ----

# second(node, port[, log]): with an error_log, or as nginx was built.
sub second ($node, $port, $log = "$dir/second.log") {
    mkdir "$dir/second";
    my $text = join ' ', 'load_module', $t->binary('module') . ';', 'user',
        Test::Tailnet::Nginx::worker_user() . ';', $t->expand(<<"EOF");
pid %%TESTDIR%%/second/nginx.pid;
daemon off;
@{[$log ? "error_log $log info;" : '']}
tailnet_engine binary=%%TAILNETD%%;
tailnet_node $node->{name} {
    netmap       %%TESTDIR%%/$node->{name}.json;
    private_key  %%TESTDIR%%/$node->{name}.key;
    port         $node->{port};
}
events { }
http {
    access_log off;
    @{[join ' ', map { "${_}_temp_path %%TESTDIR%%/second/$_;" }
        qw(client_body proxy fastcgi uwsgi scgi)]}
    server {
        tailnet_listen 80;
        listen 127.0.0.1:$port;
        tailnet_acl accept * local;
        root %%TESTDIR%%/html;
    }
}
EOF
    my $conf = $t->write_file('second.conf', $text);
    my $nginx = $t->spawn('host', [$t->binary('nginx'), '-p', "$dir/", '-c',
        $conf, $log ? ('-e', $log) : ()], name => "second$port",
        stdin => '/dev/null');
    is($t->wait_http('host', "http://127.0.0.1:$port/", 10)->status, 200,
        'a second nginx serves the LAN');
    return $nginx;
}

my @first = tailnetd();
my $nginx = second($other, 8001);
my @second = tailnetd("$dir/second");
is(scalar(@second), 2, 'it has a tailnetd of its own');
isnt($second[$_], $first[$_], 'and not that of the first') for 0, 1;
$nginx->stop('QUIT', 10);
ok($t->wait_gone(10, @second), 'which ends with it');

my $mark = $t->log_mark('second.log');
$nginx = second($web, 8002);
like($t->log_since($mark, 'second.log'),
    qr/\[error\].*\Q$dir\E\/web\.key.*(?:in use|used by|another tailnetd)/,
    'the key of the first is refused');
asks(200, 'the first serves as before');
is_deeply([tailnetd()], \@first, 'with the same tailnetd');
@second = tailnetd("$dir/second");
$nginx->stop('QUIT', 10);
ok($t->wait_gone(10, @second), 'that of the second ends');

# Debian's nginx then logs to stderr, which it knows by no name.
$nginx = second($other, 8003, '');
is(scalar(@second = tailnetd("$dir/second")), 2,
    'without any error_log there is a tailnetd');
unlike($nginx->stderr, qr/\[(?!notice)/, 'and nothing is wrong');
$nginx->stop('QUIT', 10);
ok($t->wait_gone(10, @second), 'it ends');

# ---- the end, in good order ----

# What nginx has written and the peer has not received is delivered.
my $big = $t->fetch('alice', 'http://100.64.0.1/big', rate => '6M');
ok($big->wait_received(1 << 20, 5), 'a download');
my $began = time;
ok($t->stop('QUIT'), 'nginx ends after it');
ended('quit', 10, @first);
ok($big->response->ok, 'the download is whole') or diag($big->response->text);

# ---- the end, in a hurry ----

$t->run;
# Alice would notice within 15 seconds that her keys are no use any more.
$wg->remove_peer($web);
$wg->add_peer($web);
asks(200, 'nginx serves again');
@first = tailnetd();
my @workers = $t->workers;
kill 'KILL', $t->master;
ok($t->wait_gone(5, delete $t->{master}), 'the master is killed');
asks(200, 'the workers go on');
is_deeply([tailnetd()], \@first, 'tailnetd too');
kill 'KILL', @workers;
$t->wait_gone(5, @workers);
ended('kill', 5, @first);
like($t->read_log, qr/ends: no nginx is connected any more/, 'it says why');

$t->done_testing;
