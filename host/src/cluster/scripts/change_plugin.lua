-- Writes down what the cluster runs of a plugin from now on, unless another node was quicker. Returns the revision, or 0, and
-- the id of the registry, which is the field without a name.
-- KEYS: plugins, their revision, the components that the record names, those that only the record before has named.
-- ARGV: the plugin's name, the revision of the record before, the highest revision that the node knows, the record, how many
-- components it names, how long those of the record before are kept in seconds, the channel of news, the id of the
-- registry if this one begins.
local id = redis.call('HGET', KEYS[1], '')
local record = redis.call('HGET', KEYS[1], ARGV[1])
local before = record and tonumber(string.match(record, '^%d+')) or 0
local revision = tonumber(redis.call('GET', KEYS[2]) or 0)
-- What Redis has lost has to be put back first.
if before ~= tonumber(ARGV[2]) or revision < tonumber(ARGV[3]) then
  return {0, ''}
end
if not id then
  id = ARGV[8]
  redis.call('HSET', KEYS[1], '', id)
end
revision = revision + 1
redis.call('SET', KEYS[2], revision)
redis.call('HSET', KEYS[1], ARGV[1], revision .. ' ' .. ARGV[4])
for i = 3, #KEYS do
  if i - 2 <= tonumber(ARGV[5]) then
    redis.call('PERSIST', KEYS[i])
  else
    redis.call('EXPIRE', KEYS[i], ARGV[6])
  end
end
redis.call('PUBLISH', ARGV[7], 'plugins')
return {revision, id}
