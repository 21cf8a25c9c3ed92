# What "nginx -t" cannot see: the netmap's and the key's contents.  nginx runs,
# its log says what is wrong, and a correction is taken up without a reload.
# Without tailnetd nginx serves the LAN.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new;
my $web = $t->nginx_node('web');
my $alice = $t->node('alice');

sub config ($binary) { <<"EOF" }
tailnet_engine binary=$binary;
tailnet_node web {
    netmap       web.json;
    private_key  web.key;
    port         41641;
}
worker_processes 2;
events { }
http {
    server {
        listen %%HOST%%:%%PORT_8080%%;
        tailnet_listen 80;
        location / {
            tailnet_acl accept local alice\@example.com;
            root %%TESTDIR%%/html;
        }
    }
}
EOF
mkdir $t->testdir . '/html';
$t->write_file('html/index.html', "hello\n");
my $lan = 'http://' . $t->underlay('host') . ':8080/';

# tailnetd is not there.
$t->netmap('web.json', self => $web, peers => [$alice]);
$t->write_config(config('/no/tailnetd'));
$t->run;
is($t->http_get('host', $lan)->status, 200, 'the LAN is served');
my @lines = grep { /tailnet/ && !/ \[(?:notice|info)\] / } split /\n/,
    $t->read_log;
is(@lines, 1, 'one line says that the mesh is not') or diag(join "\n", @lines);
like($lines[0] // '', qr{\[error\] .*cannot start "/no/tailnetd" \(2: No such },
    'and why');
like($lines[0] // '', qr{install tailnetd or .* 2 mesh listeners are left out},
    'and what that means');
$t->stop;

# Contents.
my %bad = (
    'a syntax error' => ["{\n  \"Node\": {,\n}\n", qr/web\.json.*line 2/],
    'another type' => ['{"Node": {"Name": 5}}', qr/web\.json.*Name/],
    'no node' => ['{}', qr/web\.json.*Node/],
    'nothing at all' => ['', qr/web\.json/],
);
my $good = Test::Tailnet::Process::slurp($t->testdir . '/web.json');

sub replace ($text) {
    rename $t->write_file('new.json', $text), $t->testdir . '/web.json'
        or die "web.json: $!";
}

replace($bad{'a syntax error'}[0]);
$t->write_config(config('%%TAILNETD%%'));
ok($t->nginx_command('-t', '-c', $t->testdir . '/nginx.conf')->{ok},
    'nginx -t does not look into the netmap');
$t->run;
ok($t->wait_for_log($bad{'a syntax error'}[1]), 'a syntax error is in the log');
my $unknown = qr/no snapshot of node "web" yet/;
ok($t->wait_for_log(qr/\[$_\].* $unknown/, 5), "peers are not known: $_")
    for qw(warn info);
is(() = $t->read_log =~ /\[warn\].* $unknown/g, 1, 'one worker warns');
is($t->http_get('host', $lan)->status, 200, 'the LAN is served');

for my $name (sort keys %bad) {
    my ($text, $regex) = $bad{$name}->@*;
    my $mark = $t->log_mark;
    replace("$text\n");
    ok($t->wait_for_log($regex, 5, from => $mark), "$name is in the log");
    is(() = $t->log_since($mark) =~ /web\.json/g, 1, 'once')
        or diag($t->log_since($mark));
}
like($t->ctl('status')->{output}, qr/web\.json/, 'and in the status');

my $mark = $t->log_mark;
replace($good);
ok($t->wait_for_log(qr/node "web": netmap applied/, 5, from => $mark),
    'one without is in the log');
$t->start_wgpeer($alice, peers => [$web]);
is($t->http_get('alice', 'http://100.64.0.1/')->status, 200,
    'a netmap without mistakes is taken up');

$mark = $t->log_mark;
replace('{');
ok($t->wait_for_log(qr/web\.json/, 5, from => $mark), 'the next is bad again');
is($t->http_get('alice', 'http://100.64.0.1/')->status, 200,
    'and changes nothing');

# Keys.
$t->stop;
my $key = Test::Tailnet::Process::slurp($t->testdir . '/web.key');
replace($good);
for my $case (['no key', "hello\n", qr/web\.key: line 1: .*privkey:/],
    ['zero', 'privkey:' . '0' x 64, qr/web\.key: line 1: the key is zero/],
    ['two', "$key\n$key\n", qr/web\.key: line \d: more than one key/])
{
    my ($name, $text, $regex) = @$case;
    my $from = $t->log_mark;
    $t->write_file('web.key', $text, 0600);
    $t->run;
    ok($t->wait_for_log($regex, 5, from => $from), "key file: $name");
    is($t->http_get('host', $lan)->status, 200, 'the LAN is served');
    $t->stop;
}
my $hex = $key =~ s/^privkey:|\s+\z//gr;
unlike($t->read_log, qr/\Q$hex\E/, 'no key is in the log');

$t->done_testing;
