# demo [--once]: nginx inside a mesh, and who asks what and gets what.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/../t/lib";

use Test::Tailnet;

$ENV{TAILNET_NO_SKIP} = 1;
my $once = grep { $_ eq '--once' } @ARGV;
my $t = Test::Tailnet->new;

my $web = $t->nginx_node('web');
my $alice = $t->node('alice', user => 'alice@example.com');
my $bob = $t->node('bob', user => 'bob@example.com');
$t->netmap('web.json', self => $web,
    peers => [map { { %$_, endpoints => [] } } $alice, $bob]);

mkdir $t->testdir . '/html' or die;
$t->write_file('html/index.html', "hello\n");
$t->write_config(<<'CONF');
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
            root %%TESTDIR%%/html;
        }
    }
}
CONF
$t->run;
$t->start_wgpeer($_, peers => [$web]) for $alice, $bob;

my $bad = 0;

sub row ($who, $asks, $want, $got) {
    my $good = $want eq $got;

    $bad++ if !$good;
    printf "%-6s %-34s %-28s %s\n", $who, $asks, $got,
        $good ? 'as expected' : "NOT as expected: $want";
}

sub ask ($who, $what, $want) {
    my $r = $t->http_get($who, 'http://100.64.0.1/');

    row($who, $what, $want, join ' ', $r->status, $r->header('x-user') // ());
}

sub both ($when) {
    ask('alice', "GET / $when", '200 alice@example.com');
    ask('bob', "GET / $when", '403');
}

printf "%-6s %-34s %s\n", qw(who asks gets);
both('');
row('nginx', 'reload', 'done', $t->reload ? 'done' : 'refused');
both('after the reload');

sub engine () {
    return grep { Test::Tailnet::Process::title($_) =~ /--engine/ }
        $t->own_pids;
}

my ($engine) = engine();
$t->expect_alert(qr/engine \d+ was killed by signal 9/);
kill KILL => $engine // die "no engine\n";
$t->wait_for_log(qr/engine \d+ starts/, 5, from => $t->log_mark);
my ($next) = engine();
row('nginx', 'kill -9 of the engine', 'another starts',
    $next && $next != $engine ? 'another starts' : 'none');
both('after that');

if (!$once) {
    printf "\nIt stays up until you press ^C.  Try:\n  %s\n",
        join ' ', $t->prefix('alice'), 'curl -v http://100.64.0.1/';
    sleep 3600 while 1;
}
exit($bad ? 1 : 0);
