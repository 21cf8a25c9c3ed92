# Where auth keys come from: a variable of nginx's environment, which may be
# another than tailnetd's, and a command; and who may name such a command.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(
    needs => [qw(nginx module tailnetd tailnetctl control)]);
my $dir = $t->testdir;
my $key = 'the-key-of-ops';
my $control = $t->start_control(keys => [
    { Key => $key, User => 'ops@example.com', Reusable => \1 }]);
my $url = $control->url;

my $config = <<"EOF";
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    control_url $url; state %%TESTDIR%%/web; auth_key env:TEST_KEY;
}
tailnet_node unset {
    control_url $url; state %%TESTDIR%%/unset; auth_key env:TEST_UNSET;
}
tailnet_node slow {
    control_url $url; state %%TESTDIR%%/slow;
    auth_key "exec:echo \$\$ > %%TESTDIR%%/slow.pid; sleep 1000; echo no";
}
events { }
http { server { tailnet_listen web:80; return 204; } }
EOF
$t->write_config($config);

sub logs_in_again ($what) {
    $t->ctl('logout', 'web');
    my $r = $t->ctl('login', 'web');

    ok($r->{ok}, $what) or diag($r->{output});
}

# ---- a variable ----

$t->run(TEST_KEY => 'of-no-use');
is($t->wait_control('web', 'refused'), 'refused',
    'a wrong key in the environment');
is($t->wait_control('unset', 'refused'), 'refused',
    'a variable that is not set');
like($t->node_status('unset')->{error},
    qr/env:TEST_UNSET: this variable is set neither/,
    'is named');

# The tailnetd of an nginx that was killed goes on with the next one, whose
# environment is the one that counts.
my $holder = $t->holder;
my @workers = $t->workers;
my $master = delete $t->{master};
kill 'KILL', $master;
ok($t->wait_gone(10, $master), 'the master is killed');
$t->run(TEST_KEY => $key);
kill 'KILL', @workers;
$t->wait_gone(10, @workers);
is($t->holder, $holder, 'another one goes on with the same tailnetd');
my $r = $t->ctl('login', 'web');
ok($r->{ok}, 'the key of its environment is used') or diag($r->{output});

# nginx passes no variable to a new binary but those of its "env" directives.
ok($t->upgrade, 'a new binary');
is($t->holder, $holder, 'with the same tailnetd');
logs_in_again('what the one before said holds');
ok($t->reload, 'a reload');
logs_in_again('after that, too');

unlike($t->read_log, qr/\Q$key\E/, 'the key is not in the log');
unlike($t->nginx_command('-T', '-c', "$dir/nginx.conf")->{output},
    qr/\Q$key\E/, 'nor in nginx -T');
unlike($t->ctl('--json', 'status')->{output}, qr/\Q$key\E/,
    'nor in the status');

$t->write_config($config =~ s/TEST_KEY/TEST_OTHER/r);
ok($t->reload, 'another variable');
$t->ctl('logout', 'web');
$r = $t->ctl('login', 'web');
ok(!$r->{ok}, 'has not the value of the first');
like($r->{output}, qr/env:TEST_OTHER: this variable is set neither/,
    'it is named');

# ---- a command ----

my $slow;
ok(Test::Tailnet::Process::until_true(15, sub {
    ($slow) = Test::Tailnet::Process::slurp("$dir/slow.pid") =~ /^(\d+)$/m;
}), 'a command runs');
ok(Test::Tailnet::Process::running($slow), 'while somebody waits for it');

my $ask = $t->write_file('ask.pl', <<'EOF');
use v5.36;
use Socket qw(AF_UNIX SOCK_SEQPACKET sockaddr_un);

# ask.pl SOCKET FILE: what tailnetd says to somebody who would like to rule it.
alarm 20;
my $seq = 0;
socket my $s, AF_UNIX, SOCK_SEQPACKET, 0 or die "socket: $!";
connect $s, sockaddr_un($ARGV[0]) or die "connect: $!\n";

sub ask ($type, $body) {
    send $s, pack('SSL', $type, 0, ++$seq) . $body, 0 or die "send: $!\n";
    recv $s, my $answer, 65536, 0;
    return substr $answer, 12;
}

ask(1, pack 'LL', 1, 1); # HELLO, as a master
for (['TABLE', 16, "tailnet_node own { ephemeral on; "
        . "auth_key 'exec:touch $ARGV[1]'; }\n"],
    ['SECRET', 23, pack 'a64', 'lab'], ['ADOPT', 17, pack 'a64', 'lab'],
    ['BEQUEST', 20, '']) {
    my ($name, $type, $body) = @$_;
    say "$name: ", ask($type, $body);
}
EOF
my ($user) = grep { defined getpwnam $_ } qw(www-data nobody daemon);
my ($uid, $gid) = (getpwnam $user)[2, 3];

mkdir "$dir/open";
chmod 0777, "$dir/open";

sub ask ($socket) {
    return $t->run_in('host', 'setpriv', "--reuid=$uid", "--regid=$gid",
        '--clear-groups', $^X, $ask, $socket, "$dir/open/touched");
}

$r = ask("$dir/nginx-tailnet/admin.sock");
like($r->{output}, qr/^connect: Permission denied/m,
    'another user does not reach the tailnetd of nginx');

ok($t->stop, 'nginx ends');
ok($t->wait_gone(10, $slow), 'and so does the command');

# Whom a service lets in may use its nodes, but not its rights.
my $lab = $t->nginx_node('lab');
$t->netmap('lab.json', self => $lab, peers => []);
$t->write_file('tailnetd.conf', "tailnet_node lab {\n"
    . "netmap lab.json; private_key lab.key; port 41641;\n}\n");
mkdir "$dir/run";
chmod 0711, "$dir/run";
my $service = $t->spawn('host', [$t->binary('tailnetd'), '-c',
    "$dir/tailnetd.conf", '--socket', "$dir/run/admin.sock", '--log',
    "$dir/tailnetd.log", '--client', $user], name => 'service');
ok(Test::Tailnet::Process::until_true(15, sub {
    $t->run_in('host', $t->binary('tailnetctl'), '--socket',
        "$dir/run/admin.sock", 'status')->{stdout} =~ /^lab: running/;
}), 'a service') or diag($service->stderr);
$r = ask("$dir/run/admin.sock");
like($r->{stdout}, qr/^TABLE: this tailnetd is a service .*: define them there/m,
    'takes no node from a client, and so no command')
    or diag($r->{output});
like($r->{stdout}, qr/^$_: $_: this tailnetd is a service/m, "no $_ either")
    for qw(SECRET ADOPT BEQUEST);
ok(!-e "$dir/open/touched", 'nothing was run');

$t->done_testing;
