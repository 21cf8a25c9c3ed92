# What the control server has to say to people is in the status for as long as
# it holds, and in the log once, whatever becomes of its streams.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP qw(decode_json);
use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(
    needs => [qw(nginx module tailnetd tailnetctl control)]);
my $control = $t->start_control(keys => [
    { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'] }]);

$t->write_file('auth.key', "key-web\n", 0600);
$t->write_config(<<"EOF");
tailnet_engine binary=%%TAILNETD%% level=info;
tailnet_node web {
    control_url @{[$control->url]}; auth_key file:%%TESTDIR%%/auth.key;
    state %%TESTDIR%%/state; tags tag:web;
}
events { }
http {
    server {
        listen 127.0.0.1:8080;
        location = /status { tailnet_acl accept local; tailnet_status; }
    }
}
EOF
$t->run;

sub control () { $t->node_status->{control} // {} }

sub until_notices ($want) {
    my $have;
    Test::Tailnet::Process::until_true(10, sub {
        $have = [map { $_->{id} } (control()->{notices} // [])->@*];
        return "@$have" eq "@$want";
    });
    return is_deeply($have, $want, "held: @$want");
}

# A stream that is not number ${n}, with its netmap.
sub next_stream ($n) {
    $t->ctl('login', 'web');
    return Test::Tailnet::Process::until_true(20, sub {
        my $c = control();
        ($c->{state} // '') eq 'running' && $c->{streams} > $n;
    });
}

ok(next_stream(0), 'the node joins') or BAIL_OUT('not joined');
until_notices([]);
my $mark = $t->log_mark;
$control->set('web', Notices => {
    'bill-due' => { Title => 'Unpaid', Text => "Or\nnot tskey-auth-secret",
        Severity => 'medium' },
    'no-relay' => { Title => 'No relay is up', Severity => 'low',
        ImpactsConnectivity => \1,
        PrimaryAction => { URL => 'https://admin.test/a', Label => 'Go' } } });
until_notices(['bill-due', 'no-relay']);
my $said = qr/node "web": the control server says: /;
my $words = 'Unpaid: Or?not tskey-' . '*' x 11;
ok($t->wait_for_log(qr/\[info\].*$said\Q$words\E$/m, 10, from => $mark),
    'the log says it, as nothing that matters much');
ok($t->wait_for_log(
    qr{\[warn\].*${said}No relay is up \(https://admin\.test/a\)$}m, 10,
    from => $mark), 'or that it does, and where to go');

is_deeply(control()->{notices}[1], { id => 'no-relay', severity => 'low',
    impacts_connectivity => JSON::PP::true, words => 'No relay is up' },
    'the status has it, but not who may act on it');
my $text = $t->ctl('status')->{stdout};
like($text, qr/^  the control server says \(medium\): \Q$words\E$/m,
    'tailnetctl shows it');
my $page = $t->http_get('host', 'http://127.0.0.1:8080/status');
is_deeply(decode_json($page->body)->{nodes}[0]{control}{notices},
    control()->{notices}, 'as does tailnet_status');

$mark = $t->log_mark;
my $streams = control()->{streams};
$control->command('POST', '/nodes/web/kick');
ok(next_stream($streams), 'another stream');
until_notices(['bill-due', 'no-relay']);
$streams = control()->{streams};
$control->serve(0);
$control->set('web', Notices => { 'bill-due' => undef });
$control->serve(1);
ok(next_stream($streams), 'and one after the server was away');
until_notices(['no-relay']);
ok($t->wait_for_log(qr/\[info\].*does not say any more: \Q$words\E$/m, 10,
    from => $mark), 'what went meanwhile is said');
unlike($t->log_since($mark), $said, 'and nothing twice');

$control->message('web', { DisplayMessages => { '*' => undef,
    'all-new' => { Text => 'All is new', Severity => 'high' } } });
until_notices(['all-new']);
ok($t->wait_for_log(qr/\[warn\].*${said}All is new$/m, 10, from => $mark),
    'what is severe is a warning');

$mark = $t->log_mark;
$streams = control()->{streams};
$control->message('web', { Health => [map { "trouble $_" } 1 .. 100] });
ok($t->wait_for_log(qr/more to say than NOTICE_MAX \(64\)/, 10,
    from => $mark), 'too much is said to be too much');
is(scalar control()->{notices}->@*, 64, 'and cut');
$control->message('web', { Health => ['trouble 1'] });
until_notices(['all-new', '']);
is(control()->{streams}, $streams, 'on the same stream');

$t->done_testing;
