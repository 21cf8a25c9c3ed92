# Logging in to a control server: wrong and used-up keys, keys that are
# replaced, a person's login, approval, expiry and renewal, removal, logout,
# and the end of ephemeral nodes.  control_login_headscale.t runs it, too.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP qw(decode_json);
use POSIX qw(strftime);
use Test::More;
use Test::Tailnet;

our $headscale; # has users without e-mail addresses, and no approval of nodes
my $at = $headscale ? '' : '@example.com';
my $t = Test::Tailnet->new(
    needs => [qw(nginx module tailnetd tailnetctl control)]);

my $control = $t->start_control(headscale => $headscale, ephemeral => 60,
    keys => [
        { Key => 'ops', User => "ops$at", Reusable => \1 },
        { Key => 'once', User => "ops$at" },
        { Key => 'fleeting', User => "ops$at", Ephemeral => \1 }]);
my $url = $control->url;

$t->write_file('wrong.key', "not-it\n", 0600);
$t->write_file('ops.key', "ops\n", 0600);
my $old = $headscale ? <<"EOF" : '';
tailnet_node old {
    control_url $url; state %%TESTDIR%%/old; capability_version 100;
    auth_key file:%%TESTDIR%%/ops.key;
}
EOF
my $config = <<"EOF";
tailnet_engine binary=%%TAILNETD%%;
tailnet_node wrong {
    control_url $url; state %%TESTDIR%%/wrong;
    auth_key file:%%TESTDIR%%/wrong.key;
}
tailnet_node gone {
    control_url $url; state %%TESTDIR%%/gone;
    auth_key file:%%TESTDIR%%/none.key;
}
tailnet_node command {
    control_url $url; state %%TESTDIR%%/command;
    auth_key "exec:echo once";
}
$old
tailnet_node person { control_url $url; state %%TESTDIR%%/person; }
tailnet_node fleeting {
    control_url $url; ephemeral on;
    auth_key "exec:echo fleeting";
}
tailnet_node member {
    control_url $url; state %%TESTDIR%%/member;
    auth_key file:%%TESTDIR%%/ops.key;
}
events { }
http {
    server {
        listen 127.0.0.1:8080;
        location / { tailnet_acl accept local; tailnet_status; }
    }
}
EOF
$t->write_config($config);
$t->run;

# ---- a wrong key, and no key ----

is($t->wait_control('wrong', 'refused'), 'refused', 'a wrong key is refused');
ok($t->wait_for_log(qr/\[error?\].*node "wrong": the control server refuses this node: invalid (?:pre )?auth key/, 2),
    'the log names node and reason');
like($t->node_status('wrong')->{error}, qr/invalid (?:pre )?auth key/,
    'the status, too');
unlike($t->read_log, qr/not-it/, 'the key is in no log');
is($t->wait_control('gone', 'refused'), 'refused',
    'a key file that is not there');
like($t->node_status('gone')->{error},
    qr{no auth key: \S+/none\.key: No such file},
    'with its path');

# The file is read again when it is needed.
$t->write_file('wrong.key', "ops\n", 0620);
my $r = $t->ctl('login', 'wrong');
ok(!$r->{ok}, 'a file that others can write');
like($r->{output}, qr/wrong\.key: others than its owner can write it/,
    'is refused');
$t->write_file('wrong.key', "ops\n", 0604);
$r = $t->ctl('login', 'wrong');
ok($r->{ok}, 'login with the right key in the file') or diag($r->{output});
like($r->{stdout}, qr/^wrong: running/m, 'it runs');
ok($t->wait_for_log(
    qr/\[warn\].*wrong\.key: others than its owner can read this key/, 2),
    'with a warning that others can read it');

if ($headscale) {
    is($t->wait_control('old', 'waiting'), 'waiting',
        'a version it does not talk to');
    like($t->node_status('old')->{error},
        qr/may not accept capability version 100/,
        'that is said');
}

# ---- keys that are good once ----

is($t->wait_control('command', 'running'), 'running', 'a key from a command');
$r = $t->ctl('logout', 'command');
ok($r->{ok}, 'it logs out') or diag($r->{output});
is($t->wait_control('command', 'stopped'), 'stopped', 'and is out');
ok(!eval { $control->node('command')->{Known}{KeyExpiry} =~ /^0001/ },
    'the server knows');
$r = $t->ctl('login', 'command');
ok(!$r->{ok}, 'the key was good once');
like($r->{output}, qr/auth ?key already used/, 'that is the reason');

# ---- a person ----

is($t->wait_control('person', 'wants-login'), 'wants-login',
    'without a key a person has to log in');
like($t->node_status('person')->{error},
    qr/"tailnetctl login person" shows where/,
    'and is told how');
$r = $t->ctl('whois', 'person/100.64.0.1');
is($r->{stderr}, 'tailnetctl: node "person" has no netmap yet: "tailnetctl'
    . qq{ status person" says why\n}, 'nobody is known yet');
my ($first) = $t->read_log =~ /node "person": to log it in, open (\S+)/;
$control->command('DELETE', '/logins');
ok($t->wait_for_log(
    qr/node "person": to log it in, open (?!\Q$first\E)\S/, 10),
    'a URL that the server forgets is replaced');
my ($login) = $t->read_log =~ /.*node "person": to log it in, open (\S+)/s;
like($login, qr{^\Q$url\E/(?:auth|register)/[\w-]+$}, 'the error log has the URL');
unlike(JSON::PP->new->encode($t->node_status('person')),
    qr{/(?:auth|register)/},
    'the status has not');
my $page = $t->http_get('host', 'http://127.0.0.1:8080/')->body;
like($page, qr/"wants-login"/, '"tailnet_status" has the state');
unlike($page, qr{/(?:auth|register)/|to log it in}, 'but not the way in');
my $json = $t->spawn('host', [$t->binary('tailnetctl'), '--json', '--socket',
    $t->testdir . '/nginx-tailnet/admin.sock', 'login', 'person'],
    name => 'login-json');
ok($json->wait_stdout(qr/\n/, 5), 'tailnetctl --json login');
is((eval { decode_json($json->stdout) } // {})->{login_url}, $login,
    'has it as JSON') or diag($json->stdout);
$json->stop;
my $ctl = $t->spawn('host', [$t->binary('tailnetctl'), '--socket',
    $t->testdir . '/nginx-tailnet/admin.sock', 'login', 'person'],
    name => 'login');
ok($ctl->wait_stdout(qr/\Q$login\E/, 5), 'tailnetctl login has it');
$control->command('POST', "/login?url=$login&user=carol$at");
is($ctl->wait(10), 0, 'it ends when the person is done')
    or diag($ctl->stderr);
is($t->node_status('person')->{control}{login}, "carol$at", 'as that person');

# ---- approval ----

is($t->wait_control('member', 'running'), 'running',
    'one that was there before');
if (!$headscale) {
    $control->command('PUT', '/approval', \1);
    $t->ctl('logout', 'member');
    $r = $t->ctl('login', 'member');
    ok(!$r->{ok}, 'a node that is not approved');
    like($r->{output}, qr/wants-approval: an administrator/, 'it says so');
    is_deeply($t->node_status('member')->{peers}, [], 'it has no peers');
    $control->set('member', Approved => \1);
    is($t->wait_control('member', 'running'), 'running', 'approved');
    $control->command('PUT', '/approval', \0);
}

# ---- expiry ----

my $mark = $t->log_mark;
my $before = $control->node('member')->{Node}{Key};
$control->set('member',
    KeyExpiry => strftime('%Y-%m-%dT%H:%M:%SZ', gmtime(time - 5)));
ok($control->wait_node('member', 10, sub ($n) {
    $n->{Node}{Key} ne $before && $n->{Connected};
}), 'an expired key is renewed');
ok($t->wait_for_log(qr/node "member": its key was renewed/, 2), 'it is said');
is($t->wait_control('member', 'running'), 'running', 'it runs');

$control->set('person',
    KeyExpiry => strftime('%Y-%m-%dT%H:%M:%SZ', gmtime(time - 5)));
ok(Test::Tailnet::Process::until_true(10,
    sub { $t->node_status('person')->{state} eq 'expired' }),
    'without an auth key it has to stay expired');
is($t->wait_control('person', 'wants-login'), 'wants-login',
    'or a person comes');
$control->set('person', KeyExpiry => '0001-01-01T00:00:00Z');
is($t->wait_control('person', 'running'), 'running',
    'until somebody extends it');
unlike($t->log_since($mark), qr/an administrator .*approve/,
    'nobody is asked for an approval');

$before = $control->node('member')->{Node}{Key};
ok($t->ctl('rotate', 'member')->{ok}, 'a new key on demand');
ok($control->wait_node('member', 10, sub ($n) {
    $n->{Node}{Key} ne $before && $n->{Connected};
}), 'the server has it');

# ---- a login that does not wait for the logout ----

$mark = $t->log_mark;
$before = $control->node('member')->{Node}{Key};
sub begin ($what) {
    return $t->spawn('host', [$t->binary('tailnetctl'), '--socket',
        $t->testdir . '/nginx-tailnet/admin.sock', $what, 'member'],
        name => $what);
}
$control->silence(1);
my $logout = begin('logout');
ok(Test::Tailnet::Process::until_true(10, sub {
    ($t->node_status('member')->{control}{words} // '') eq 'logging out';
}), 'a logout that the server does not answer yet');
$ctl = begin('login');
Test::Tailnet::Process::until_true(10, sub {
    grep { (readlink // '') =~ /^socket:/ } glob "/proc/$ctl->{pid}/fd/*";
});
is($t->node_status('member')->{control}{words}, 'logging out', 'it goes on');
$control->silence(0);
is($ctl->wait(20), 0, 'the login comes after it') or diag($ctl->stderr);
ok($control->wait_node('member', 10, sub ($n) {
    $n->{Node}{Key} ne $before && $n->{Connected};
}), 'with a new key');
ok($t->wait_for_log(qr/node "member": logged out/, 2, from => $mark),
    'the log has both');
is($t->wait_control('member', 'running'), 'running', 'it stays in');
$logout->stop;

# ---- removal ----

my $member = 'member';
my $forgotten = qr/node "member": the control server does not know this node any more/;
$mark = $t->log_mark;
$control->remove('member');
if ($headscale) {
    # The node does not hear of it before it has something to say.
    $member = 'renamed';
    $config =~ s/(state %%TESTDIR%%\/member;)/$1 hostname renamed;/;
    $t->write_config($config);
    $t->reload;
}
ok($control->wait_node($member, 15),
    'a removed node joins again');
ok($t->wait_for_log(qr/$forgotten; it tries again/, 2), 'the log says why');
is(scalar(() = $t->log_since($mark) =~ /$forgotten/g), 1, 'once');

# ---- the server is busy ----

for my $case ([429, 'register', 'asks to wait'], [503, 'map', 'HTTP status 503'],
    [500, 'map', 'HTTP status 500']) {
    my ($status, $what, $words) = @$case;
    my $mark = $t->log_mark;

    $t->ctl('logout', 'member') if $what eq 'register';
    $control->fault(Path => "/machine/$what", Status => $status,
        RetryAfter => '1', Count => 1);
    $control->command('POST', "/nodes/$member/kick") if $what ne 'register';
    $t->ctl('login', 'member') if $what eq 'register';
    ok($t->wait_for_log(qr/\Q$words\E/, 10, from => $mark), "$status: it is said");
    is($t->wait_control('member', 'running', 20), 'running', 'and tried again');
}
$control->fault();

# ---- the end ----

is($t->wait_control('fleeting', 'running'), 'running', 'an ephemeral node');
my $reload = $control->node('fleeting')->{Node}{ID};
$t->reload;
is($control->node('fleeting')->{Node}{ID}, $reload, 'a reload keeps it');
$t->expect_alert(qr/engine \d+ was killed by signal 9/);
ok($t->kill_engine, 'the engine is killed');
is($t->wait_control('fleeting', 'running'), 'running', 'it runs again');
is($control->node('fleeting')->{Node}{ID}, $reload, 'as the same node');
$t->stop;
ok(!$control->node('fleeting'), 'the end of nginx logs it out');
ok($control->node('person'), 'but not the others');

$t->done_testing;
