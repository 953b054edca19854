{{- define "llamacluster.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-operator
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}-operator
{{- end -}}
{{- end -}}

{{/* Of what is in no namespace and every release has: several may have one name, in other namespaces. */}}
{{- define "llamacluster.clusterName" -}}
{{ include "llamacluster.name" . }}-{{ .Release.Namespace }}
{{- end -}}

{{- define "llamacluster.selectorLabels" -}}
app.kubernetes.io/name: llamacluster-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Ours win: they select pods, or say whose an object is. */}}
{{- define "llamacluster.labels" -}}
{{- $ours := include "llamacluster.ownLabels" . | fromYaml -}}
{{ toYaml (merge $ours .Values.commonLabels) }}
{{- end -}}

{{- define "llamacluster.ownLabels" -}}
{{ include "llamacluster.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "llamacluster.image" -}}
{{- $tag := .image.tag | default .appVersion -}}
{{ .image.repository }}{{ if .image.digest }}@{{ .image.digest }}{{ else }}:{{ $tag }}{{ end }}
{{- end -}}

{{/* Refuses what would wait for metrics of the operator that nobody can read. */}}
{{- define "llamacluster.prometheusIsLetIn" -}}
{{- if not .Values.networkPolicy.ingress -}}
{{- fail "the operator's metrics (metrics.enabled) need a rule in networkPolicy.ingress that lets Prometheus in: without it monitoring.podMonitors are of targets that are always down, and of monitoring.alerts there is always the one that no operator works" -}}
{{- end -}}
{{- end -}}

{{/* What the operator may do with the objects in a namespace; docs/security.md says why. */}}
{{- define "llamacluster.rules" -}}
- apiGroups: [llamacluster.dev]
  resources: [llamaclusters]
  verbs: [get, list, watch]
- apiGroups: [llamacluster.dev]
  resources: [llamaclusters/status]
  verbs: [patch]
- apiGroups: [leaderworkerset.x-k8s.io]
  resources: [leaderworkersets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
# The operator does not read them; its token could (docs/security.md).
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch]
# Whether another node may mount the model of a leader whose node is lost.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end -}}
