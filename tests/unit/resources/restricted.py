"""The `restricted` Pod Security Standard, as far as a pod spec of ours can break it."""

from __future__ import annotations

from tests.build import Manifest

ALLOWED_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"),
    *("projected", "secret"),
}


def violations(spec: Manifest) -> list[str]:
    """What the standard forbids in a pod spec; empty when it passes."""
    pod = spec.get("securityContext", {})
    found = [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    found += [
        f"volume {volume}"
        for volume in spec.get("volumes", [])
        if not (volume.keys() - {"name"}) <= ALLOWED_VOLUMES
    ]
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        context = container.get("securityContext", {})
        capabilities = context.get("capabilities", {})
        both = {**pod, **context}
        checks = {
            "privileged": context.get("privileged"),
            "privilege escalation": context.get("allowPrivilegeEscalation") is not False,
            "capabilities kept": "ALL" not in capabilities.get("drop", []),
            "capabilities added": set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"},
            "may run as root": both.get("runAsNonRoot") is not True,
            "runs as root": both.get("runAsUser") == 0,
            "seccomp": both.get("seccompProfile", {}).get("type")
            not in ("RuntimeDefault", "Localhost"),
            "host port": any("hostPort" in port for port in container.get("ports", [])),
        }
        found += [f"{container['name']}: {what}" for what, broken in checks.items() if broken]
    return found
