# The control server may say where it wants to be found next time
# (ControlDialPlan); that is tried first, and its own address when nobody is
# there.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Tailnet;

my $t = Test::Tailnet->new(
    needs => [qw(nginx module tailnetd tailnetctl control)]);

my $control = $t->start_control(
    keys => [{ Key => 'ops', User => 'ops@example.com' }]);
my $server = $t->underlay('control');
my $other = $t->second_address('control');

$t->nft('control', <<"EOC");
table ip other {
    chain in {
        type nat hook prerouting priority dstnat;
        ip daddr $other dnat to $server
    }
}
EOC
$t->write_file('ops.key', "ops\n", 0600);
$t->write_config(<<"EOC");
tailnet_engine binary=%%TAILNETD%%;
tailnet_node web {
    control_url @{[$control->url]};
    auth_key file:%%TESTDIR%%/ops.key; state %%TESTDIR%%/web;
}
events { }
http { server { listen 127.0.0.1:8080; return 204; } }
EOC
$t->run;
$control->wait_node('web', 10) or BAIL_OUT('nginx has not joined');

sub status () { $t->node_status->{control} // {} }

# advise(addresses): what the node is told, and has heard.
sub advise (@ips) {
    my $before = status()->{messages};
    $control->message('web', { ControlDialPlan => { Candidates =>
        [map { { IP => $ips[$_], Priority => 10 - $_ } } 0 .. $#ips] } });
    ok(Test::Tailnet::Process::until_true(10,
        sub { (status()->{messages} // 0) > $before }), 'a plan: ' . "@ips");
}

# rejoins(what): a new stream after the old one is cut.
sub rejoins ($what) {
    my $before = status()->{streams};
    $control->command('POST', '/kick');
    ok(Test::Tailnet::Process::until_true(15, sub {
        my $s = status();
        return ($s->{streams} // 0) > $before
            && ($s->{state} // '') eq 'running';
    }), $what) or diag(explain(status()), $t->read_log);
}

# ---- its usual address is not there ----

advise($other);
$t->nft('host', <<"EOC");
table ip shut {
    chain out {
        type filter hook output priority 0;
        ip daddr $server tcp dport 8080 reject
    }
}
EOC
rejoins('by the address of the plan');
$t->nft('host', "delete table ip shut\n");

# ---- the plan is of no use ----

advise('127.0.0.1');
rejoins('by its own address');

$t->done_testing;
