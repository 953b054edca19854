from tests.kind.faults import COMMENT, cut_rules


def words(*parts: str) -> list[str]:
    return [*parts, "-m", "comment", "--comment", COMMENT, "-j", "DROP"]


def test_a_cut_node_drops_all_that_comes_and_goes_in_both_ip_versions() -> None:
    both = [
        words("-t", "raw", "PREROUTING", "-i", "eth+"),
        words("-t", "mangle", "POSTROUTING", "-o", "eth+"),
    ]
    assert cut_rules(None, ("in", "out")) == [
        *(("iptables", rule) for rule in both),
        *(("ip6tables", rule) for rule in both),
    ]


def test_a_cut_pair_drops_the_peer_and_its_pods_each_in_its_ip_version() -> None:
    rules = cut_rules(["172.18.0.3", "fc00::3", "10.244.1.0/24"], ("in", "out"))
    named = {(tool, rule[rule.index(flag) + 1]) for tool, rule in rules for flag in ("-s", "-d")
             if flag in rule}  # fmt: skip
    assert named == {
        ("iptables", "172.18.0.3"),
        ("iptables", "10.244.1.0/24"),
        ("ip6tables", "fc00::3"),
    }
    assert len(rules) == 6


def test_one_direction_leaves_the_way_back_open() -> None:
    assert cut_rules(["172.18.0.3"], ("out",)) == [
        ("iptables", words("-t", "mangle", "POSTROUTING", "-o", "eth+", "-d", "172.18.0.3"))
    ]
