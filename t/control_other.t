# A node that goes on with another control connection, after a reload with
# another "capability_version" (another "control_url" is the same), tells there
# how it is reached: with the disco key that it has, and its endpoints.  With
# another "state" it is who that says, as after a restart.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(
    needs => [qw(nginx module tailnetd tailnetctl control)]);
my $control = $t->start_control(keys => [
    { Key => 'key-web', User => 'ops@example.com', Tags => ['tag:web'],
        Reusable => \1 }]);

sub configure ($options, $state = 'state') {
    $t->write_config(<<"EOF");
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    control_url @{[$control->url]}; auth_key file:%%TESTDIR%%/auth.key;
    state %%TESTDIR%%/$state; tags tag:web; $options
}
events { }
http { server { listen 127.0.0.1:8080; return 204; } }
EOF
}

sub reached ($version) {
    return $control->wait_node('web', 20, sub ($n) {
        return $n->{Connected} && $n->{Node}{Cap} == $version
            && ($n->{Node}{Endpoints} // [])->@* > 0;
    });
}

$t->write_file('auth.key', "key-web\n", 0600);
configure('');
$t->run;
my $first = reached(131);
ok($first, 'the node tells its endpoints') or BAIL_OUT('not joined');

configure('capability_version 120;');
$t->reload;
my $second = reached(120);
ok($second, 'and again over the new connection') or BAIL_OUT('not told');
is($second->{Node}{Key}, $first->{Node}{Key}, 'it is the same node');
is($second->{Node}{DiscoKey}, $first->{Node}{DiscoKey}, 'of one disco key');

my $key = $first->{Node}{Key};
configure('capability_version 120;', 'a/new/one');
$t->reload;
ok($control->wait_node('web', 20,
    sub ($n) { $n->{Connected} && $n->{Node}{Key} ne $key }),
    'another state is another node');
ok(-s $t->testdir . '/a/new/one/keys', 'whose keys are saved there');
configure('capability_version 120;');
$t->reload;
ok(Test::Tailnet::Process::until_true(20, sub {
    grep { $_->{Connected} && $_->{Node}{Key} eq $key } $control->nodes;
}), 'the first one comes back');

$t->done_testing;
